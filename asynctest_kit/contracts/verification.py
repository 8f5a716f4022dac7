"""The provider's side of a pact: every interaction of its consumers is played against it.

The program ``pact verifier`` does it, in a process of its own, which can be ended at any time: the library's function
that does the same can't, and prints to the terminal. What it asks the provider's states and messages for, and the
application in this process, is answered on the test's loop; see :mod:`asynctest_kit.contracts.provider_server`.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx

from asynctest_kit.contracts.errors import PactError, PactVerificationError
from asynctest_kit.contracts.pact_files import pact_of, pair_of
from asynctest_kit.contracts.pact_program import BROKER, pact_program, program_environment, secrets
from asynctest_kit.contracts.provider_server import Fault, Kind, MessageHandler, ProviderServer, open_provider_server
from asynctest_kit.contracts.states import StateHandler, States, check_handlers, place_of
from asynctest_kit.contracts.wording import told_details
from asynctest_kit.http.own_frames import own_frames, place_raised
from asynctest_kit.http.scrubbing import without

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Broker", "Provider", "Verified", "location", "pact_options", "played", "verify"]

#: Lines of what the program printed that are shown where there is nothing better.
_LAST_LINES: Final = 20

#: Where states are asked for. Every user of the machine may read a command line, and not an environment.
_STATES: Final = "PACT_PROVIDER_STATE_CHANGE_URL"

#: Only answers to requests have these, and no messages.
_OF_REQUESTS: Final = ("HeaderMismatch", "StatusMismatch")

_HERE: Final = ("127.0.0.1", "localhost")

#: Seconds that a request to the provider may take, and a state to be brought about.
_ANSWER: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """A Pact Broker, and what is asked of it. The login is told by the environment.

    Attributes:
        url: Where it is.
        selectors: Which versions of its consumers count, as the broker's selectors; none for its own choice.
        enable_pending: Whether a pact that has never been verified may fail.
        version: The provider's version, if the result is to be published.
        branch: The provider's branch.
    """

    url: str
    selectors: Sequence[Mapping[str, Any]] = ()
    enable_pending: bool = False
    version: str = ""
    branch: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """Who is verified.

    Attributes:
        name: What consumers call it.
        base_url: What its URLs begin with; empty if there is none.
        transport: What reaches it; None: a real socket.
        states: What brings its states about, by their names; see :mod:`asynctest_kit.contracts.states`.
        messages: What makes its messages, by their descriptions.
        headers: Beside those of each request to it; a login, say.
    """

    name: str
    base_url: str = ""
    transport: httpx.AsyncBaseTransport | None = None
    states: Mapping[str, StateHandler] = field(default_factory=dict)
    messages: Mapping[str, MessageHandler] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Verified:
    """What was verified.

    Attributes:
        interactions: The descriptions of those that were played, sorted.
        output: What the program printed.
    """

    interactions: tuple[str, ...]
    output: str = field(repr=False)


async def verify(
    provider: Provider,
    sources: Sequence[str | Path] | Broker,
    *,
    consumers: Sequence[str] = (),
    only: str = "",
    deadline: float = 60.0,
) -> Verified:
    """Play what the consumers expect against the provider.

    Args:
        provider: Who is verified.
        sources: Pact files, folders of them, URLs of them; or a broker.
        consumers: The names of those that count; none for all.
        only: A regular expression for the descriptions of interactions; empty for all.
        deadline: Seconds for all of it.

    Raises:
        PactVerificationError: An interaction fails, or not all ended in time. The message says which and why.
        PactError: There is nothing to verify, or no program that does it.
    """
    __tracebackhide__ = True
    check_handlers("states", provider.states)
    check_handlers("messages", provider.messages)
    program = pact_program(os.environ)
    where = _broker_options(sources) if isinstance(sources, Broker) else pact_options(provider.name, sources)
    states = States(provider.states)
    async with AsyncExitStack() as stack:
        transport = provider.transport
        if transport is None and provider.base_url and provider.headers:  # a command line is no place for a login
            has_tls = provider.base_url.startswith("https:")  # else the certificates are not read, which takes long
            transport = await stack.enter_async_context(httpx.AsyncHTTPTransport(verify=has_tls))
        opened = open_provider_server(states, provider.messages, transport, provider.base_url, provider.headers)
        server = await stack.enter_async_context(opened)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="asynctest_kit-pact-")))
        report = folder / "report.json"
        reached = server.url if transport is not None or not provider.base_url else provider.base_url
        arguments = [
            *(program, "verifier", "--no-colour", f"--json={report}", f"--provider-name={provider.name}"),
            *location(reached),
            *_messages(reached, server, provider),
            *("--state-change-teardown", f"--request-timeout={int(_ANSWER * 1000)}"),
            *where,
            *(f"--filter-consumer={name}" for name in consumers),
            *([f"--filter-description={only}"] if only else ()),
        ]
        broker = sources.url if isinstance(sources, Broker) else ""
        environment = program_environment(os.environ, broker)
        if not broker:
            environment.pop(BROKER, None)  # with it the program would ask the broker, too
        environment[_STATES] = f"{server.url}{server.states_path}"
        ended = await _run(arguments, environment, states, server, deadline)
        verified = _judged(provider, ended, report, server)
        if isinstance(sources, Broker) and sources.version:
            _check_published(ended.output)
        return verified


@dataclass(frozen=True, slots=True)
class _Ended:
    code: int
    output: str


async def _run(
    arguments: Sequence[str], environment: Mapping[str, str], states: States, server: ProviderServer, deadline: float
) -> _Ended:
    __tracebackhide__ = True
    try:
        async with asyncio.timeout(deadline), asyncio.TaskGroup() as group:
            program = group.create_task(_program(arguments, environment, states))
            await states.work()
    except TimeoutError:
        doing = ", ".join(server.doing) or "the provider's answer, or that of whoever has the pacts"
        raise PactVerificationError(
            f"The verification did not end within {deadline:g} s. It waited for: {doing}. Give it a longer deadline=, "
            "or find out what keeps it."
        ) from None
    except BaseExceptionGroup as group:  # of one: a state's pytest.skip(), or what one raised at the very end
        raise group.exceptions[0] from None
    return program.result()


async def _program(arguments: Sequence[str], environment: Mapping[str, str], states: States) -> _Ended:
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        text = without(output.decode(errors="replace"), secrets(environment))
        return _Ended(process.returncode or 0, text.strip())
    finally:
        states.end()


def location(url: str) -> list[str]:
    """The options that say where a provider is."""
    parts = httpx.URL(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 80)
    path = parts.path.rstrip("/")
    base = [f"--base-path={path}"] if path else []
    return [f"--hostname={parts.host}", f"--port={port}", f"--transport={parts.scheme}", *base]


def _messages(url: str, server: ProviderServer, provider: Provider) -> list[str]:
    """The option that says where messages are asked for: on the provider's host."""
    host = httpx.URL(url).host
    if host in _HERE:
        return ["--transports", f"message:{httpx.URL(server.url).port}{server.messages_path}"]
    if provider.messages:
        raise PactError(
            f"Messages are made in this process, and the provider is at {host}: verify the two one after the other, "
            "messages without an application."
        )
    return []


def _broker_options(broker: Broker) -> list[str]:
    selectors = [f"--consumer-version-selectors={json.dumps(dict(selector))}" for selector in broker.selectors]
    published = ["--publish", f"--provider-version={broker.version}"] if broker.version else []
    branch = [f"--provider-branch={broker.branch}"] if broker.branch else []
    return [*selectors, *published, *branch, *(["--enable-pending"] if broker.enable_pending else ())]


def pact_options(provider: str, sources: Sequence[str | Path]) -> list[str]:
    """The options that name each pact of ``provider``: a folder may hold those of others, too.

    Raises:
        PactError: There is none.
    """
    __tracebackhide__ = True
    found: list[str] = []
    others: set[str] = set()
    for source in sources:
        if isinstance(source, str) and source.startswith(("http://", "https://")):
            found.append(f"--url={source}")
            continue
        path = Path(source)
        if not path.exists():
            raise PactError(f"There is no pact file, and no folder of them, {path.absolute()}.")
        for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
            document = pact_of(file)
            name = pair_of(document)[1] if document is not None else None
            if name == provider:
                found.append(f"--file={file}")
            elif name is not None:
                others.add(name)
            elif not path.is_dir():
                raise PactError(f"{path} is no pact.")
    if not found:
        where = ", ".join(map(str, sources)) or "no source that was given"
        of_others = f" There are some with {', '.join(map(repr, sorted(others)))}." if others else ""
        raise PactError(
            f"There is no pact with the provider {provider!r} in {where}.{of_others} Consumers' tests write them; or "
            "name a broker."
        )
    return found


def played(result: Mapping[str, Any]) -> tuple[str, ...]:
    """The descriptions of the interactions in the program's report, sorted."""
    return tuple(sorted(str(one.get("description", "")) for one in result.get("interactionResults", ())))


def _judged(provider: Provider, ended: _Ended, report: Path, server: ProviderServer) -> Verified:
    __tracebackhide__ = True
    try:
        result = json.loads(report.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise PactError(
            f"`pact verifier` ended with {ended.code} before it had verified anything:\n"
            f"{_last_lines(ended.output)}{_login_hint(ended.output)}"
        ) from None
    failures = [_Failure.read(one) for one in result.get("errors", ())]
    if not failures and not server.errors and ended.code == 0:
        descriptions = played(result)
        if not descriptions:
            raise PactError(
                f"Nothing was verified: of the pacts with {provider.name} no interaction is left. Look at consumers= "
                f"and only=, and at the broker's selectors.\n{_last_lines(ended.output)}"
            )
        return Verified(descriptions, ended.output)
    if failures and all(one.is_about_loading for one in failures):
        raise PactError("\n".join(one.text for one in failures) + _login_hint(ended.output))
    raise PactVerificationError(_told(provider, failures, len(result.get("interactionResults", ())), ended, server))


def _check_published(output: str) -> None:
    """Raise PactError if the broker did not take the result, which the program only prints."""
    failed = [line for line in output.splitlines() if "Publishing of verification results failed" in line]
    if failed:
        raise PactError(
            f"Every interaction was verified, and the broker did not take the result: {failed[0].partition(': ')[2]}"
        )


@dataclass(frozen=True, slots=True)
class _Failure:
    interaction: str
    text: str
    details: tuple[str, ...]
    is_of_request: bool

    @classmethod
    def read(cls, error: Mapping[str, Any]) -> _Failure:
        mismatch = error.get("mismatch") or {}
        interaction = str(error.get("interaction", "")).removeprefix("Verifying a pact between ")
        details = mismatch.get("mismatches", ())
        of_request = any(detail.get("type") in _OF_REQUESTS for detail in details)
        return cls(interaction, str(mismatch.get("message", "")), tuple(told_details(details)), of_request)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it fails, a line each."""
        return (*self.details, *([self.text] if self.text else ()))

    @property
    def is_about_states(self) -> bool:
        """Whether a state could not be brought about, or taken away; nothing else is told then."""
        return "state change handler" in self.text

    def is_of(self, fault: Fault) -> bool:
        """Whether ``fault`` is why it fails; a state or a message of a longer name is another."""
        match fault.kind:
            case Kind.SETUP:
                return self.is_about_states and "teardown" not in self.text and self._is_given(fault.name)
            case Kind.TEARDOWN:
                return self.is_about_states and "setup" not in self.text and self._is_given(fault.name)
            case Kind.MESSAGE:
                return not self.is_of_request and self.interaction.endswith(f" - {fault.name}")
            case Kind.REQUEST:
                return False

    def _is_given(self, state: str) -> bool:
        if not state:
            return " Given " not in self.interaction
        return re.search(rf" (?:Given|And) {re.escape(state)}(?: And | - )", self.interaction) is not None

    @property
    def is_about_loading(self) -> bool:
        """Whether there was no interaction yet."""
        return self.interaction.startswith("Failed to load pact") or "Failed to load pact" in self.text


def _told(provider: Provider, failures: Sequence[_Failure], played: int, ended: _Ended, server: ProviderServer) -> str:
    errors = [(one, f"{one.what}: {_where(one, provider)}") for one in server.errors]
    lines: list[str] = []
    told: set[str] = set()
    is_providers = False
    for number, failure in enumerate(failures, 1):
        own = dict.fromkeys(text for one, text in errors if failure.is_of(one))
        told |= own.keys()
        is_providers = is_providers or not (own or failure.is_about_states)
        lines.append(f"  {number}. {failure.interaction}")
        lines += [f"     {text}" for text in own or failure.reasons]
    lines += [f"  {text}" for text in dict.fromkeys(text for _, text in errors) if text not in told]
    if not lines:
        lines.append(_last_lines(ended.output))
    is_tests = any(one.kind is not Kind.REQUEST for one, _ in errors)
    of = f"{len(failures)} of {played} interactions"
    if is_providers or not is_tests:
        lines.insert(0, f"{provider.name} does not do what its consumers expect: {of} fail.")
    else:
        lines.insert(0, f"The test's own part of verifying {provider.name} fails, for {of}.")
    if is_tests:
        lines.append("What brings states about and makes messages is the test's: mend it where it says.")
    if is_providers or not is_tests:
        lines.append(
            "Let the provider do it again; or if a consumer needs it no longer, let the consumer's tests say so, and "
            "take their new pact."
        )
    return "\n".join(lines)


def _where(fault: Fault, provider: Provider) -> str:
    """An error and its place: in the test's or the provider's code, or else the handler that came to it."""
    states, messages = provider.states, provider.messages
    handlers = {Kind.SETUP: states, Kind.TEARDOWN: states, Kind.MESSAGE: messages, Kind.REQUEST: {}}[fault.kind]
    handler, error = handlers.get(fault.name), fault.error
    if handler is not None and not own_frames(error):
        place = place_of(handler)
    else:
        place = "" if isinstance(error, PactError) else place_raised(error)
    return f"{type(error).__name__}: {error}{f' ({place})' if place else ''}"


def _last_lines(output: str) -> str:
    return "\n".join(f"  {line}" for line in output.splitlines()[-_LAST_LINES:])


def _login_hint(output: str) -> str:
    if "401" not in output and "403" not in output:
        return ""
    return (
        "\nThe broker refused the login: set PACT_BROKER_TOKEN, or PACT_BROKER_USERNAME and PACT_BROKER_PASSWORD, in "
        "the environment."
    )
