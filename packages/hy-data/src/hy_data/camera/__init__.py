"""Camera motion of a clip: the 14 classes of the HunyuanVideo paper (section 3.1), by the geometry of its optical flow.

classes       the classes and what they mean
motion        how the picture moves between frames: a planar motion model fitted to optical flow
features      numbers that tell the classes apart, from that
forest        the classifier: a random forest as plain arrays
stage         the stage camera-motion

photographs, scenes, moves, generator   labelled clips of synthetic camera moves, for training and measuring
training      train and measure a classifier
"""

from __future__ import annotations
