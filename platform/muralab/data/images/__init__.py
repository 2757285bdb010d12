"""One picture: bytes in, grey values out, within limits."""
