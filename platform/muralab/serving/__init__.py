"""The served model: pictures of a study in, one calibrated answer out. Not a medical device.

Needs numpy, pandas, onnxruntime, Pillow, OpenCV, pydicom and MLflow; no torch, no ray and no pickle. A registered model
carries its own copy of this package, of `muralab.errors` and of `muralab.data.images`.
"""

from __future__ import annotations
