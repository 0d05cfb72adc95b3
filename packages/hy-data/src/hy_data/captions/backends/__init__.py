"""Back-ends that write structured captions, behind one small interface (`base.Captioner`).

measured       from what stages measured; needs nothing, looks only at colours
given          from captions beside the file, or from ground truth
transformers   a vision-language model in a folder
endpoint       a vision-language model behind an OpenAI-compatible chat endpoint
"""

from __future__ import annotations
