"""What the audio networks see and read: picture and text encoders, loaded when needed and let go after use."""

from __future__ import annotations
