"""As whom images are fetched: what ``docker login`` has left in Docker's configuration.

In Docker's own order: the credential helper of the registry (``credHelpers``), the helper for all (``credsStore``), the
file itself (``auths``). DOCKER_AUTH_CONFIG, where CI services put the file's content, comes before the file.

What a helper says may be a secret, its complaints too: none of it gets into a message.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import shutil
from typing import TYPE_CHECKING, Any

from asynctest_kit.provision.providers.engine import docker_config
from asynctest_kit.provision.providers.engine.image_names import DOCKER_HUB
from asynctest_kit.provision.waiting import to_its_end

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["CredentialsError", "header", "header_for_build"]

#: Seconds for a credential helper to answer; it may ask a keychain, and that its user.
_PATIENCE = 20.0

#: What Docker's configuration calls Docker Hub.
_HUB_KEY = "https://index.docker.io/v1/"

#: What helpers say instead of credentials if they have none for a registry.
_NONE_KEPT = b"credentials not found"

#: The user's name that helpers give with an identity token.
_TOKEN_USER = "<token>"  # noqa: S105  # a name


class CredentialsError(Exception):
    """Credentials that are configured can't be had; the message shows none."""


async def header(registry: str, environ: Mapping[str, str]) -> str | None:
    """The value of ``X-Registry-Auth``; None if nobody has logged in there.

    Raises:
        CredentialsError: A helper is missing or fails.
    """
    credentials = await _credentials(registry, environ)
    return _encoded(credentials) if credentials else None


async def header_for_build(registries: Collection[str], environ: Mapping[str, str]) -> str | None:
    """The value of ``X-Registry-Config``, for the images that a build begins with."""
    found = {}
    for registry in registries:
        if credentials := await _credentials(registry, environ):
            found[_key(registry)] = credentials
    return _encoded(found) if found else None


async def _credentials(registry: str, environ: Mapping[str, str]) -> dict[str, str] | None:
    config = await asyncio.to_thread(_configuration, environ)
    key = _key(registry)
    helpers = _table(config, "credHelpers")
    helper = helpers.get(key) or helpers.get(registry) or config.get("credsStore")
    if helper:
        return await _ask_helper(str(helper), key, environ)

    auths = _table(config, "auths")
    entry = auths.get(key) or next((auth for name, auth in auths.items() if _host(name) == _host(key)), None)
    return _from_file(entry, key) if isinstance(entry, dict) else None


def _configuration(environ: Mapping[str, str]) -> dict[str, Any]:
    if given := environ.get("DOCKER_AUTH_CONFIG"):
        try:
            content = json.loads(given)
        except ValueError:
            raise CredentialsError("DOCKER_AUTH_CONFIG is no JSON (the content of a Docker config.json)") from None
        if isinstance(content, dict):
            return content
    return docker_config.configuration(environ)


def _table(config: dict[str, Any], key: str) -> dict[str, Any]:
    found = config.get(key)
    return found if isinstance(found, dict) else {}


def _key(registry: str) -> str:
    return _HUB_KEY if registry == DOCKER_HUB else registry


def _host(name: str) -> str:
    """``https://registry.example/v1/`` and ``registry.example`` are the same registry."""
    return name.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _from_file(entry: dict[str, Any], server: str) -> dict[str, str] | None:
    if token := entry.get("identitytoken"):
        return {"identitytoken": str(token), "serveraddress": server}
    if token := entry.get("registrytoken"):
        return {"registrytoken": str(token), "serveraddress": server}

    username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if encoded := entry.get("auth"):
        try:
            username, _, password = base64.b64decode(str(encoded), validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            raise CredentialsError(
                f"the entry of {server} in Docker's configuration is damaged: log in again with `docker login`"
            ) from None
    if not username:
        return None
    return {"username": username, "password": password.rstrip("\0"), "serveraddress": server}


async def _ask_helper(helper: str, server: str, environ: Mapping[str, str]) -> dict[str, str] | None:
    name = f"docker-credential-{helper}"
    program = shutil.which(name, path=environ.get("PATH"))
    if program is None:
        raise CredentialsError(f"Docker's configuration wants the credential helper `{name}`, which is not on PATH")

    output, code = await _output(program, name, server, environ)
    if code and _NONE_KEPT in output:
        return None
    if code:
        raise CredentialsError(f"the credential helper `{name}` failed for {server} with exit code {code}")
    try:
        answer = json.loads(output)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, TypeError, KeyError):
        raise CredentialsError(f"the credential helper `{name}` gave no credentials for {server}") from None
    if username == _TOKEN_USER:
        return {"identitytoken": secret, "serveraddress": server}
    return {"username": username, "password": secret, "serveraddress": server}


async def _output(program: str, name: str, server: str, environ: Mapping[str, str]) -> tuple[bytes, int]:
    process = await asyncio.create_subprocess_exec(
        program,
        "get",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=dict(environ),
    )
    try:
        async with asyncio.timeout(_PATIENCE):
            output, _ = await process.communicate(f"{server}\n".encode())
    except TimeoutError:
        raise CredentialsError(f"the credential helper `{name}` did not answer within {_PATIENCE:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await to_its_end(process.wait())
    return output, process.returncode or 0


def _encoded(value: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()
