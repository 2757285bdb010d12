"""Decoding of one image: bytes in, grey values out, within limits. A served model ships this package."""
