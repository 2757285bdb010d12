"""The files that put the app behind a proxy: they agree with each other, with the app and with the pins."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from muralab.app.limits import Limits

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
NGINX = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
DOCKER = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
NOT_SERVING = ("torch", "timm", "ray", "albumentations", "onnx", "onnxscript", "safetensors", "jinja2")


def test_only_the_proxy_is_reached_from_outside():
    assert [name for name, service in COMPOSE["services"].items() if "ports" in service] == ["proxy"]


def test_the_proxy_asks_the_app_where_it_listens():
    port = re.search(r'"--port", "(\d+)"', DOCKER)[1]
    assert f"server app:{port};" in NGINX
    assert COMPOSE["services"]["app"]["expose"] == [port]


def test_the_app_has_a_token_from_a_secret_that_is_not_tracked():
    assert '"--token-file", "/run/secrets/token"' in DOCKER
    assert COMPOSE["secrets"]["token"]["file"] == "./token.txt"
    assert {"token.txt", "tls/", "model/"} <= set((DEPLOY / ".gitignore").read_text().split())


def test_the_proxy_keeps_no_body_that_the_app_would_refuse():
    assert f"client_max_body_size {Limits().max_bytes // 2**20}m;" in NGINX


def test_one_address_cannot_hold_all_the_apps_places():
    places = int(re.search(r"limit_conn addresses (\d+);", NGINX)[1])
    assert 4 * places <= Limits().at_once + Limits().waiting == int(re.search(r"of the (\d+) that", NGINX)[1])


def test_the_proxy_waits_for_no_slow_client():
    assert "client_header_timeout 10s;" in NGINX
    assert "client_body_timeout 15s;" in NGINX


def test_nothing_is_told_to_anyone():
    assert "MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true" in DOCKER


def test_the_image_pins_what_the_checkout_pins():
    pins = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    assert re.findall(r"\w+==[\d.]+", DOCKER)
    assert [pin for pin in re.findall(r"\w+==[\d.]+", DOCKER) if pin not in pins] == []


def test_the_app_needs_none_of_the_packages_of_training():
    code = f"import sys; sys.modules |= dict.fromkeys({NOT_SERVING}); import muralab.cli.generate, muralab.app.build"
    code += "; import muralab.registry.load, muralab.commands.app, muralab.cli"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "platform")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("nginx") is None, reason="not installed: nginx")
def test_nginx_takes_the_configuration(tmp_path):
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in kinds)
    changes = {"server app:": "server 127.0.0.1:", "tls/": f"{tmp_path}/", "http {": "http {" + places}
    written = functools.reduce(lambda text, change: text.replace(*change), changes.items(), NGINX)
    (tmp_path / "nginx.conf").write_text(written)
    subject = ["-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject],
        cwd=tmp_path,
        check=True,
        stderr=subprocess.DEVNULL,
    )
    command = ["nginx", "-t", "-c", str(tmp_path / "nginx.conf"), "-e", str(tmp_path / "log")]
    done = subprocess.run([*command, "-g", f"pid {tmp_path}/pid;"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
