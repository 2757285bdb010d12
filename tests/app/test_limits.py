"""Slow bodies, large bodies together, and what does not have to wait."""

from __future__ import annotations

import socket
import threading
import time
import urllib.request

import pytest
from starlette.exceptions import HTTPException

from muralab.app.build import build_app
from muralab.app.limits import Limits, Turns
from tests.app.conftest import post, serving, text

BODY = {"inputs": [{"image": text()}]}
HEAD = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"


def test_a_slow_body_does_not_block_other_requests(model):
    with serving(build_app(model, {}, limits=Limits(at_once=1))) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as slow:
            slow.sendall(HEAD)
            time.sleep(0.2)
            assert post(url, BODY)[0] == 200


def test_the_bytes_of_all_bodies_are_limited_and_freed():
    turns = Turns(Limits(max_bytes=10, at_once=2))
    with turns.place() as first, turns.place() as second:
        first.hold(10)
        second.hold(10)
        with pytest.raises(HTTPException, match="Too many requests are waiting"):
            second.hold(1)
    with turns.place() as third:
        third.hold(20)


def test_ping_is_answered_while_a_body_is_parsed(model, monkeypatch):
    parsing, answered = threading.Event(), threading.Event()
    monkeypatch.setattr("muralab.app.build.read_request", lambda *_: parsing.set() or answered.wait(120))
    with serving(build_app(model, {})) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as asking:
            asking.sendall(HEAD + b" " * 99)
            assert parsing.wait(60)
            assert urllib.request.urlopen(f"{url}/ping", timeout=60).status == 200
            answered.set()
