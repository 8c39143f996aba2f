"""A throw-away certificate authority, made by the `openssl` command for one run of the tests."""

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


class Authority:
    """Signs certificates for servers; trusted by whoever loads `certificate`."""

    def __init__(self, directory: Path) -> None:
        """Skips the test where there is no `openssl`."""
        if shutil.which("openssl") is None:
            pytest.skip("the openssl command is missing")
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.certificate = directory / "ca.pem"
        self._key = directory / "ca.key"
        out = ["-keyout", str(self._key), "-out", str(self.certificate)]
        self._openssl("req", "-x509", *KEY, *out, "-subj", "/CN=test authority", "-days", "2")

    def server(self, host: str, *, days: int = 2) -> ssl.SSLContext:
        """What a server of that name needs. Negative `days`: it expired so long ago."""
        name = f"{host}-{days}"
        key, request, signed = (self._directory / f"{name}.{end}" for end in ("key", "csr", "pem"))
        extensions = self._directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName=DNS:{host}\n")
        subject = ["-subj", f"/CN={host}"]
        self._openssl("req", "-new", *KEY, "-keyout", str(key), "-out", str(request), *subject)
        signer = ["-CA", str(self.certificate), "-CAkey", str(self._key), "-CAcreateserial"]
        files = ["-in", str(request), "-extfile", str(extensions), "-out", str(signed)]
        self._openssl("x509", "-req", *files, *signer, "-days", str(days))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(signed, key)
        context.set_alpn_protocols(["http/1.1"])
        return context

    def client(self) -> ssl.SSLContext:
        """What a client that trusts this authority alone needs."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        context.set_alpn_protocols(["http/1.1"])
        return context

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)
