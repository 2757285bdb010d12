"""Users for locust in `make soak`: valid requests, whose answers must not change, and invalid ones.

    locust -f bench/load.py --headless --users 3 --run-time 60s --host http://127.0.0.1:5001 --requests requests.json

The file holds a list of `bench.payloads.LoadRequest`.
"""

from __future__ import annotations

import json
import random
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import numpy as np
from locust import HttpUser, constant, events, task

from bench.payloads import LoadRequest, read_probabilities

TIMEOUT_S = 60.0
TOLERANCE = 1e-6


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_option(parser: ArgumentParser) -> None:
    """Add the option of this file."""
    parser.add_argument("--requests", required=True, help="JSON file with a list of requests")


def find_problem(request: LoadRequest, response: Any) -> str | None:
    """What is wrong with an answer, if anything."""
    if response.status_code == 0:
        return f"no answer ({type(response.error).__name__})"
    summary = f"{response.status_code} {response.text[-200:]!r}"
    if request["expected"] is None:
        refused = 400 <= response.status_code < 500 and "Traceback" not in response.text
        return None if refused or not request["reaches_model"] else summary
    if response.status_code != 200 or (probabilities := read_probabilities(response.json())) is None:
        return summary
    expected, received = np.array(request["expected"], float), np.array(probabilities, float)
    same = np.allclose(expected, received, atol=TOLERANCE, equal_nan=True)
    return None if same else f"{probabilities}, at first {request['expected']}"


class ModelUser(HttpUser):
    """Sends all requests of a kind in random order, again and again."""

    abstract = True
    valid: bool

    def on_start(self) -> None:
        """Read the requests."""
        requests = json.loads(Path(self.environment.parsed_options.requests).read_text(encoding="utf-8"))
        self.requests = [request for request in requests if (request["expected"] is not None) == self.valid]
        self.remaining: list[LoadRequest] = []

    @task
    def send(self) -> None:
        """Send the next request; the order is random, or users would fall in and out of step."""
        self.remaining = self.remaining or random.sample(self.requests, len(self.requests))
        request = self.remaining.pop()
        with self.client.post(
            "/invocations",
            data=request["body"].encode(),
            headers={"Content-Type": request["content_type"]},
            name="valid" if self.valid else "invalid",
            timeout=TIMEOUT_S,
            catch_response=True,
        ) as response:
            problem = find_problem(request, response)
            if problem:
                response.failure(f"{request['name']}: {problem}")
            else:
                response.success()


class ValidUser(ModelUser):
    """Two clients with valid requests."""

    fixed_count = 2
    valid = True


class InvalidUser(ModelUser):
    """One client with mistakes."""

    fixed_count = 1
    valid = False
    wait_time = constant(0.05)
