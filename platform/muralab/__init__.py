"""MURA Lab: find, compare, track and serve classifiers of abnormal bone radiographs. Not a medical device."""

__version__ = "0.1.0"
