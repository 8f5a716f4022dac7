"""The consumer's side of a pact: a test says what it expects, and plays it against a mock server of its own.

    async def test_charge(pact):
        (
            pact.upon_receiving("a charge")
            .with_request("POST", "/charges")
            .with_body({"amount_cents": 900}, content_type="application/json")
            .will_respond_with(201)
            .with_body({"id": match.str("ch_1")}, content_type="application/json")
        )
        async with pact.serve() as payments, httpx.AsyncClient(base_url=payments.url) as http:
            assert await Payments(http).charge(amount_cents=900) == "ch_1"

What is expected is told to pact-python's own builder. What the test said is kept only if all of it was played and the
test passed.

The library's calls block for a fraction of a millisecond (64 mock servers at once: half of the calls take less than
0.2 ms, the slowest 8 ms; 0.1 s to close one with a request that came in part), so they are made on the loop; the file
that it can't do without is written in a thread.
"""

from __future__ import annotations

import inspect
import json
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from anyio import to_thread

from asynctest_kit.contracts.errors import PactError, PactMismatchError
from asynctest_kit.contracts.pact_files import Said, check_agreement, check_names
from asynctest_kit.contracts.wording import told_mismatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from asynctest_kit.settings.pacts import PactSettings

__all__ = ["ConsumerPact", "MockProvider", "Words"]

InteractionKind = Literal["HTTP", "Async", "Sync"]

_EXTRA: Final = "Pacts need pact-python, which is not installed: pip install 'asynctest_kit[pact]'."


@dataclass(slots=True)
class Words:
    """What one test says to all of its pairs.

    Attributes:
        test: Which one.
        said: What was played as it was said.
        wrong: What was not, in words.
        open: The pacts of the test, some of which may have something that was not played.
        is_spoilt: Whether the test has failed, or was skipped.
    """

    test: str
    said: list[Said] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    open: list[ConsumerPact] = field(default_factory=list)
    is_spoilt: bool = False

    def check(self) -> None:
        """Raise PactMismatchError if something was not played, or otherwise than it was said.

        Raises:
            PactConflictError: The test itself says two things of one interaction.
        """
        __tracebackhide__ = True
        unplayed = [text for pact in self.open for text in pact.unplayed()]
        if unplayed:
            raise PactMismatchError(
                f"{', '.join(unplayed)}: expected and never played. Call the consumer within "
                "`async with pact.serve() as provider:`; messages are given to `await pact.receive(handler)`."
            )
        if self.wrong:
            raise PactMismatchError("\n".join(self.wrong))
        check_agreement(self.said, {})


@dataclass(frozen=True, slots=True)
class MockProvider:
    """The provider's stand-in, on a socket of the loopback interface.

    Attributes:
        url: What its URLs begin with.
    """

    url: str


class ConsumerPact:
    """What a test says to a pair of consumer and provider.

    Args:
        words: Where the test's words are kept.
        settings: Who they are, unless said otherwise.
        consumer: The name of the consumer; empty for the settings' ``name``.
        provider: The name of the provider; empty for the settings'.
        specification: ``V2``, ``V3`` or ``V4``; empty for the settings'.
    """

    def __init__(
        self, words: Words, settings: PactSettings, consumer: str = "", provider: str = "", specification: str = ""
    ) -> None:
        self._words = words
        self._settings = settings
        self._consumer = consumer or settings.name
        self._provider = provider or settings.provider
        self._specification = specification or settings.specification
        self._http: Any = None
        self._messages: Any = None
        self._descriptions: dict[str, list[str]] = {"HTTP": [], "messages": []}
        words.open.append(self)

    def __call__(self, *, consumer: str = "", provider: str = "", specification: str = "") -> ConsumerPact:
        """The same test's pact with another provider, or as another consumer."""
        return ConsumerPact(
            self._words,
            self._settings,
            consumer or self._consumer,
            provider or self._provider,
            specification or self._specification,
        )

    def __repr__(self) -> str:
        return f"<pact of {self._consumer or '?'} with {self._provider or '?'}>"

    def upon_receiving(self, description: str, kind: InteractionKind = "HTTP") -> Any:
        """Begin an interaction; what is returned is pact-python's builder of one.

        Args:
            description: What the provider is asked for; with the states, it tells interactions apart.
            kind: ``HTTP``, or a message: ``Async``, or ``Sync`` with an answer.

        Raises:
            PactError: Nobody said who the consumer is, or the provider; or pact-python isn't installed.
        """
        if kind == "HTTP":
            self._http = native = self._http or self._new()
            self._descriptions["HTTP"].append(description)
        else:
            self._messages = native = self._messages or self._new()
            self._descriptions["messages"].append(description)
        return native.upon_receiving(description, kind)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[MockProvider]:
        """Serve what is expected since the last time, on a mock server of its own, until the block is left.

        Raises:
            PactMismatchError: A request was not as expected, was not expected at all, or never came.
            PactError: Nothing is expected.
        """
        __tracebackhide__ = True
        native, descriptions = self._http, self._descriptions["HTTP"]
        if native is None:
            raise PactError("pact.serve(): nothing is expected yet. Begin with pact.upon_receiving(description).")
        self._http, self._descriptions["HTTP"] = None, []
        # The library closes a server when the last reference to it goes, so nothing else may have one.
        server = native.serve(addr="127.0.0.1", raises=False, verbose=False)
        server.__enter__()
        try:
            yield MockProvider(str(server.url))
        except Exception as error:
            mismatches = server.mismatches
            del server
            document = await _written(native)
            if mismatches:
                told = self._told(mismatches, document)
                self._words.wrong.append(told)
                error.add_note(told)
            else:  # an answer that the consumer raises for was played, too
                self._words.said.append(Said(self._words.test, document))
            raise
        except BaseException:
            del server
            self._words.wrong.append(f"{', '.join(map(repr, descriptions))}: broken off.")
            raise
        mismatches = server.mismatches
        del server
        document = await _written(native)
        if mismatches:
            raise PactMismatchError(self._told(mismatches, document))
        self._words.said.append(Said(self._words.test, document))

    async def receive(self, handler: Callable[[Any, dict[str, Any]], Awaitable[object] | object]) -> None:
        """Give each message that is expected since the last time to ``handler``: its contents and its metadata.

        Args:
            handler: Usually an async function; what it raises fails the test.

        Raises:
            PactMismatchError: The handler can't do with one.
            PactError: No message is expected.
        """
        __tracebackhide__ = True
        native = self._messages
        if native is None:
            raise PactError(
                'pact.receive(): no message is expected yet. Begin with pact.upon_receiving(description, "Async").'
            )
        self._messages, self._descriptions["messages"] = None, []
        for kind in ("Async", "Sync"):
            for message in native.interactions(kind):
                contents = message.contents if kind == "Async" else message.request_contents
                body, metadata = (contents.contents, _metadata(contents)) if contents is not None else (None, {})
                description = "".join(message.description)  # of a str that shows its address
                try:
                    handled = handler(body, metadata)
                    if inspect.isawaitable(handled):
                        await handled
                except Exception as error:
                    raise PactMismatchError(
                        f"The message {description!r} of the pact of {self._consumer} with {self._provider} "
                        f"can't be handled: {type(error).__name__}: {error}"
                    ) from error
        self._words.said.append(Said(self._words.test, await _written(native)))

    def unplayed(self) -> list[str]:
        """What is expected and was never played, in words."""
        return [repr(description) for each in self._descriptions.values() for description in each]

    def _new(self) -> Any:
        if not self._consumer or not self._provider:
            missing, key = ("the provider", "provider") if self._consumer else ("the consumer", "name")
            argument = "provider" if self._consumer else "consumer"
            raise PactError(
                f"Nobody says who {missing} is. Set {key} in [tool.asynctest_kit.pact], or say "
                f'pact({argument}="...") in the test.'
            )
        check_names(self._consumer, self._provider)
        try:
            from pact import Pact
        except ImportError:
            raise PactError(_EXTRA) from None
        return Pact(self._consumer, self._provider).with_specification(self._specification)

    def _told(self, mismatches: Iterable[Any], document: dict[str, Any]) -> str:
        lines = [line for each in mismatches for line in told_mismatch(each, document)]
        return (
            f"The pact of {self._consumer} with {self._provider} was not kept by the consumer:\n"
            + "\n".join(f"  {line}" for line in lines)
            + "\nLet the consumer ask as it is expected, or the test expect what it asks."
        )


async def _written(native: Any) -> dict[str, Any]:
    return await to_thread.run_sync(_write, native)


def _write(native: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="asynctest_kit-pact-") as folder:
        native.write_file(folder, overwrite=True)
        (file,) = Path(folder).iterdir()
        document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return document


def _metadata(contents: Any) -> dict[str, Any]:
    found = {}
    for pair in contents.metadata:
        try:
            found[pair.key] = json.loads(pair.value)
        except ValueError:
            found[pair.key] = pair.value
    return found
