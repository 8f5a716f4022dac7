"""A test double of a Pact Broker: what the program ``pact`` asks of one, kept in memory. It is no broker.

Pacts are published to it, fetched for verification, verified, and asked about by ``can-i-deploy``; whoever has not the
token gets 401. The paths and links are those that the program follows.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote


@dataclass
class BrokerDouble:
    """An ASGI application.

    Attributes:
        token: What a caller must have.
        pacts: By consumer and provider: the version of the consumer, and the pact.
        results: What was verified: consumer, provider, the provider's version, whether it holds.
        asked: The methods and paths that were asked for.
    """

    token: str = "t0ken-of-the-double"
    pacts: dict[tuple[str, str], tuple[str, dict]] = field(default_factory=dict)
    results: list[tuple[str, str, str, bool]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            return await _lifespan(receive, send)
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        status, answer = 401, {"error": "Unauthorized"}
        if headers.get("authorization") == f"Bearer {self.token}":
            base = f"{scope['scheme']}://{headers['host']}"
            self.asked.append(f"{scope['method']} {scope['path']}")
            given = json.loads(body) if body else {}
            status, answer = self._answer(base, scope["path"], parse_qs(scope["query_string"].decode()), given)
        content = json.dumps(answer).encode()
        start = [(b"content-type", b"application/hal+json"), (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": start})
        return await send({"type": "http.response.body", "body": content})

    def _answer(self, base, path, query, given):  # noqa: PLR0911  # a path each
        match [unquote(part) for part in path.strip("/").split("/")]:
            case [""]:
                return 200, {"_links": _index(base)}
            case ["contracts", "publish"]:
                return self._publish(base, given)
            case ["pacts", "provider", provider, "latest"]:
                links = [_link(base, *pair) for pair in self.pacts if pair[1] == provider]
                return 200, {"_links": {"pacts": links, "pb:pacts": links}}
            case ["pacts", "provider", provider, "for-verification"]:
                found = [pair for pair in self.pacts if pair[1] == provider]
                embedded = {"pacts": [_for_verification(base, *pair) for pair in found]}
                return 200, {"_embedded": embedded, "_links": {"self": {"href": base + path}}}
            case ["pacts", "provider", provider, "consumer", consumer, "latest"]:
                return 200, self._pact(base, consumer, provider)
            case ["pacts", "provider", provider, "consumer", consumer, "verification-results"]:
                self.results.append((consumer, provider, given["providerApplicationVersion"], given["success"]))
                return 201, {"_links": {"self": {"href": f"{base}/results/{len(self.results)}"}}}
            case ["pacticipants", name, *_]:
                return 200, {"name": name, "_links": {"self": {"href": base + path}} | _of_pacticipant(base, name)}
            case ["matrix"]:
                return self._matrix(query)
        return 404, {"error": f"the double knows no {path}"}

    def _publish(self, base, given):
        for contract in given["contracts"]:
            pact = json.loads(base64.b64decode(contract["content"]))
            pair = contract["consumerName"], contract["providerName"]
            self.pacts[pair] = given["pacticipantVersionNumber"], pact
        notices = [{"type": "success", "text": f"{len(given['contracts'])} taken by the double"}]
        contracts = [_link(base, *pair) for pair in self.pacts]
        name, version = given["pacticipantName"], given["pacticipantVersionNumber"]
        here = f"{base}/pacticipants/{name}"
        links = {
            "pb:contracts": contracts,
            "pb:pacticipant": {"href": here, "name": name, "title": "Pacticipant"},
            "pb:pacticipant-version": {"href": f"{here}/versions/{version}", "name": version, "title": "Version"},
            "pb:pacticipant-version-tags": [],
        }
        return 200, {"notices": notices, "_links": links}

    def _pact(self, base, consumer, provider):
        _, pact = self.pacts[consumer, provider]
        here = f"{base}/pacts/provider/{provider}/consumer/{consumer}"
        links = {
            "self": {"href": f"{here}/latest", "name": f"{consumer} with {provider}"},
            "pb:provider": {"href": f"{base}/pacticipants/{provider}", "name": provider},
            "pb:consumer": {"href": f"{base}/pacticipants/{consumer}", "name": consumer},
            "pb:publish-verification-results": {"href": f"{here}/verification-results"},
        }
        return pact | {"_links": links}

    def _matrix(self, query):
        name, version = query["q[][pacticipant]"][0], query["q[][version]"][0]
        found = [holds for consumer, provider, _, holds in self.results if name in (consumer, provider)]
        deployable = bool(found) and all(found)
        reason = "all required verification results are published and successful"
        summary = {
            "deployable": deployable,
            "reason": reason if deployable else f"no successful result for {name} {version}",
            "success": sum(found),
            "failed": found.count(False),
            "unknown": int(not found),
        }
        return 200, {"summary": summary, "notices": [{"type": "info", "text": summary["reason"]}], "matrix": []}


def _index(base):
    provider = f"{base}/pacticipants/{{pacticipant}}"
    return {
        "self": {"href": base},
        "pb:publish-contracts": {"href": f"{base}/contracts/publish"},
        "pb:latest-provider-pacts": {"href": f"{base}/pacts/provider/{{provider}}/latest", "templated": True},
        "pb:provider-pacts-for-verification": {
            "href": f"{base}/pacts/provider/{{provider}}/for-verification",
            "templated": True,
        },
        "pb:pacticipant": {"href": provider, "templated": True},
        "pb:pacticipant-version": {"href": f"{provider}/versions/{{version}}", "templated": True},
    }


def _of_pacticipant(base, name):
    branch = f"{base}/pacticipants/{name}/branches/{{branch}}/versions/{{version}}"
    return {"pb:branch-version": {"href": branch, "templated": True}}


def _link(base, consumer, provider):
    return {
        "href": f"{base}/pacts/provider/{provider}/consumer/{consumer}/latest",
        "name": f"{consumer}/{provider}",
        "title": "Pact",
    }


def _for_verification(base, consumer, provider):
    links = {"self": _link(base, consumer, provider)}
    return {"shortDescription": "latest", "verificationProperties": {"notices": []}, "_links": links}


async def _lifespan(receive, send):
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
