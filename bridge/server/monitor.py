"""HTTP on loopback: discovery of parameters (OSCQuery), the state of the bridge as JSON, and the monitor page."""

from __future__ import annotations

import asyncio
import hmac
import json
from importlib import resources
from typing import Any

from aiohttp import WSMsgType, web

from ...engine.errors import StemProverError
from ..osc import ROOT
from .parameters import PARAMETERS
from .registry import Registry, stream_status
from .stream import Stream

UPDATE_S = 0.1
BANDS = 48
MAX_PAGES = 16
COOKIE = "stemprover-token"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}
FILES = {"monitor.html": "text/html", "monitor.js": "text/javascript", "monitor.css": "text/css"}
_READ_WRITE = 3  # ACCESS in OSCQuery


class Monitor:
    """The HTTP server of a bridge. osc_port: where the bridge listens for OSC, to announce it."""

    def __init__(self, registry: Registry, osc_port: int) -> None:
        self.registry, self.osc_port = registry, osc_port
        self._sockets: set[web.WebSocketResponse] = set()
        self._titles: list[tuple[str, str]] = []
        self._updates: asyncio.Task[None] | None = None

    async def start(self, port: int) -> int:
        """Listen on this port (0: any free one) and return it. Raises OSError if the port is taken."""
        app = web.Application(middlewares=[self._guard], client_max_size=1 << 14)
        app.router.add_get("/", self._root)
        app.router.add_get("/status.json", self._status)
        app.router.add_get("/live", self._live)
        for name in FILES:
            app.router.add_get(f"/{name}", self._file)
        app.router.add_get("/{path:.*}", self._namespace)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.port: int = self._runner.addresses[0][1]
        self._titles = await self.registry.titles()
        self._updates = asyncio.get_running_loop().create_task(self._send_updates())
        return self.port

    async def stop(self) -> None:
        """Close all connections and stop listening."""
        if self._updates is not None:
            self._updates.cancel()
        for live in list(self._sockets):
            await live.close()
        await self._runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Reject requests without token and those of other web sites, whatever host name leads them to this port."""
        names = {f"{name}:{self.port}" for name in ("127.0.0.1", "localhost", "[::1]")}
        if request.headers.get("Host", "") not in names:
            raise web.HTTPForbidden(text="unknown host name; use 127.0.0.1 or localhost")
        origin = request.headers.get("Origin")
        if origin is not None and origin not in {f"http://{name}" for name in names}:
            raise web.HTTPForbidden(text="requests from other web sites are not allowed")
        if token := self.registry.config.token:
            bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
            given = request.query.get("token") or request.cookies.get(COOKIE) or bearer
            if not hmac.compare_digest(given.encode("utf-8", "replace"), token.encode()):
                raise web.HTTPUnauthorized(text="token missing or wrong; open /monitor.html?token=TOKEN")
        response = await handler(request)
        if not response.prepared:
            response.headers.update(HEADERS)
            if self.registry.config.token and "token" in request.query:
                response.set_cookie(COOKIE, self.registry.config.token, httponly=True, samesite="Strict")
        return response

    async def _root(self, request: web.Request) -> web.StreamResponse:
        if "HOST_INFO" in request.query_string:
            return web.json_response(self._host_info())
        if "text/html" in request.headers.get("Accept", ""):
            query = f"?{request.query_string}" if request.query_string else ""
            return web.HTTPFound(f"/monitor.html{query}")
        return web.json_response(self._tree())

    async def _status(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({**self.registry.status(), "port": self.osc_port, "http_port": self.port})

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name = request.path.removeprefix("/")
        text = resources.files(__package__ or "").joinpath(name).read_text("utf-8")
        return web.Response(text=text, content_type=FILES[name], charset="utf-8")

    # OSCQuery

    def _host_info(self) -> dict[str, Any]:
        config = self.registry.config
        return {
            "NAME": "StemProver",
            "OSC_IP": config.host,
            "OSC_PORT": self.osc_port,
            "OSC_TRANSPORT": "UDP",
            "EXTENSIONS": {"ACCESS": True, "VALUE": True, "RANGE": True, "DESCRIPTION": True, "TAGS": False},
        }

    def _tree(self) -> dict[str, Any]:
        streams = {str(number): self._node(stream) for number, stream in self.registry.streams.items()}
        path = f"{ROOT}/stream"
        tree = {"FULL_PATH": path, "ACCESS": 0, "DESCRIPTION": "Open streams", "CONTENTS": streams}
        root = {"FULL_PATH": ROOT, "ACCESS": 0, "CONTENTS": {"stream": tree}}
        return {"FULL_PATH": "/", "ACCESS": 0, "DESCRIPTION": "StemProver", "CONTENTS": {ROOT[1:]: root}}

    def _node(self, stream: Stream) -> dict[str, Any]:
        path = f"{ROOT}/stream/{stream.number}"
        names = [name for name, _ in self._titles]
        contents = {
            name: {
                "FULL_PATH": f"{path}/{name}", "TYPE": parameter.tag, "ACCESS": _READ_WRITE,
                "VALUE": [parameter.read(stream)], "RANGE": [parameter.limits or {"VALS": names}],
                "DESCRIPTION": parameter.about,
            }
            for name, parameter in PARAMETERS.items()
        }  # fmt: skip
        return {"FULL_PATH": path, "ACCESS": 0, "DESCRIPTION": stream.name, "CONTENTS": contents}

    async def _namespace(self, request: web.Request) -> web.StreamResponse:
        node: Any = self._tree()
        for part in request.path.strip("/").split("/"):
            node = node.get("CONTENTS", {}).get(part)
            if node is None:
                raise web.HTTPNotFound(text=f"{request.path} does not exist")
        attribute = request.query_string.partition("=")[0]
        if attribute in ("VALUE", "TYPE", "RANGE", "ACCESS", "DESCRIPTION"):
            if attribute not in node:
                raise web.HTTPNoContent
            return web.json_response({attribute: node[attribute]})
        return web.json_response(node)

    # Monitor page

    async def _live(self, request: web.Request) -> web.StreamResponse:
        if len(self._sockets) >= MAX_PAGES:
            raise web.HTTPServiceUnavailable(text=f"{MAX_PAGES} monitor pages are open; close one")
        live = web.WebSocketResponse(max_msg_size=1 << 12, heartbeat=20.0)
        await live.prepare(request)
        self._sockets.add(live)
        self._watch()
        try:
            texts = {name: parameter.limits for name, parameter in PARAMETERS.items() if parameter.tag == "s"}
            choices = {name: limits["VALS"] for name, limits in texts.items() if limits is not None}
            await live.send_json({"presets": self._titles, "choices": choices})
            async for message in live:
                if message.type == WSMsgType.TEXT:
                    await self._set(live, message.data)
        finally:
            self._sockets.discard(live)
            self._watch()
        return live

    async def _set(self, live: web.WebSocketResponse, text: str) -> None:
        try:
            setting = json.loads(text)
            stream, name, value = self.registry.stream(int(setting["stream"])), setting["name"], setting["value"]
            if name == "blend":
                await stream.selection.blend({str(preset): float(weight) for preset, weight in value.items()})
                return
            parameter = PARAMETERS[name]
            held = parameter.set(stream, str(value) if parameter.tag == "s" else float(value))
            if not isinstance(held, int):
                await held
        except StemProverError as error:
            await live.send_json({"error": str(error)})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            await live.send_json({"error": f"invalid setting: {error}"})

    def _watch(self) -> None:
        for stream in self.registry.streams.values():
            stream.watched = bool(self._sockets)

    async def _send_updates(self) -> None:
        """Send the state to all pages every UPDATE_S."""
        while True:
            await asyncio.sleep(UPDATE_S)
            if not self._sockets:
                continue
            self._watch()
            streams = []
            for stream in self.registry.streams.values():
                levels = stream.scope.take(BANDS, stream.format.sample_rate)
                streams.append({**stream_status(stream), "dry": levels["dry"], "wet_level": levels["wet"]})
            update = json.dumps({**self.registry.status(), "streams": streams})
            for live in list(self._sockets):
                try:
                    await asyncio.wait_for(live.send_str(update), 1.0)
                except (ConnectionError, RuntimeError, TimeoutError):
                    self._sockets.discard(live)
                    await live.close()
