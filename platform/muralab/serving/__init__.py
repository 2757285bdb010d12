"""The served model: the images of a study in, one calibrated answer out. Not a medical device.

Needs numpy, pandas, onnxruntime, Pillow, OpenCV, pydicom, imagecodecs and MLflow; no torch, no Ray and no pickle. A
registered model carries its own copy of this package, of `muralab.data.images` and of two modules beside them.
"""

from __future__ import annotations
