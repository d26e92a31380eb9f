"""HTTP on loopback: what parameters there are (OSCQuery), the bridge's state as JSON, and the monitor page."""

from __future__ import annotations

import asyncio
import hmac
import json
from importlib import resources
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

from ...engine.errors import StemProverError
from ..osc import ROOT
from .parameters import PARAMETERS
from .registry import Hub, stream_status
from .stream import Stream

if TYPE_CHECKING:
    from .transport import Bridge

NEWS_S = 0.1
BANDS = 48
MOST_WATCHERS = 16
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
_READ_WRITE = 3


class Monitor:
    """`start` listens and returns the port; `stop` ends it."""

    def __init__(self, hub: Hub, bridge: Bridge) -> None:
        self.hub, self.bridge = hub, bridge
        self._sockets: set[web.WebSocketResponse] = set()
        self._titles: list[tuple[str, str]] = []
        self._news: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Raises OSError where the port is taken."""
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
        self._titles = await self.hub.titles()
        self._news = asyncio.get_running_loop().create_task(self._tell())
        return self.port

    async def stop(self) -> None:
        """End all connections."""
        if self._news is not None:
            self._news.cancel()
        for live in list(self._sockets):
            await live.close()
        await self._runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """A page from elsewhere must neither read nor set anything here, by whatever name it reaches this port."""
        names = {f"{name}:{self.port}" for name in ("127.0.0.1", "localhost", "[::1]")}
        if request.headers.get("Host", "") not in names:
            raise web.HTTPForbidden(text="this host name is not the bridge's")
        origin = request.headers.get("Origin")
        if origin is not None and origin not in {f"http://{name}" for name in names}:
            raise web.HTTPForbidden(text="this origin is not the bridge's own page")
        if wanted := self.hub.config.token:
            bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
            given = request.query.get("token") or request.cookies.get(COOKIE) or bearer
            if not hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode()):
                raise web.HTTPUnauthorized(text="give the bridge's token: /monitor.html?token=...")
        response = await handler(request)
        if not response.prepared:
            response.headers.update(HEADERS)
            if self.hub.config.token and "token" in request.query:
                response.set_cookie(COOKIE, self.hub.config.token, httponly=True, samesite="Strict")
        return response

    async def _root(self, request: web.Request) -> web.StreamResponse:
        if "HOST_INFO" in request.query_string:
            return web.json_response(self._host_info())
        if "text/html" in request.headers.get("Accept", ""):
            query = f"?{request.query_string}" if request.query_string else ""
            return web.HTTPFound(f"/monitor.html{query}")
        return web.json_response(self._tree())

    async def _status(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({**self.hub.status(), "port": self.bridge.port, "http_port": self.port})

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name = request.path.removeprefix("/")
        text = resources.files(__package__ or "").joinpath(name).read_text("utf-8")
        return web.Response(text=text, content_type=FILES[name], charset="utf-8")

    # OSCQuery

    def _host_info(self) -> dict[str, Any]:
        config = self.hub.config
        return {
            "NAME": "StemProver",
            "OSC_IP": config.host,
            "OSC_PORT": self.bridge.port,
            "OSC_TRANSPORT": "UDP",
            "EXTENSIONS": {"ACCESS": True, "VALUE": True, "RANGE": True, "DESCRIPTION": True, "TAGS": False},
        }

    def _tree(self) -> dict[str, Any]:
        streams = {str(number): self._node(stream) for number, stream in self.hub.streams.items()}
        path = f"{ROOT}/stream"
        tree = {"FULL_PATH": path, "ACCESS": 0, "DESCRIPTION": "Open streams", "CONTENTS": streams}
        own = {"FULL_PATH": ROOT, "ACCESS": 0, "CONTENTS": {"stream": tree}}
        return {"FULL_PATH": "/", "ACCESS": 0, "DESCRIPTION": "StemProver", "CONTENTS": {ROOT[1:]: own}}

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
                raise web.HTTPNotFound(text=f"there is no {request.path}")
        wanted = request.query_string.partition("=")[0]
        if wanted in ("VALUE", "TYPE", "RANGE", "ACCESS", "DESCRIPTION"):
            if wanted not in node:
                raise web.HTTPNoContent
            return web.json_response({wanted: node[wanted]})
        return web.json_response(node)

    # the page

    async def _live(self, request: web.Request) -> web.StreamResponse:
        if len(self._sockets) >= MOST_WATCHERS:
            raise web.HTTPServiceUnavailable(text="too many monitor pages are open; close one")
        live = web.WebSocketResponse(max_msg_size=1 << 12, heartbeat=20.0)
        await live.prepare(request)
        self._sockets.add(live)
        self._watch()
        try:
            await live.send_json({"presets": self._titles})
            async for message in live:
                if message.type == WSMsgType.TEXT:
                    await self._set(live, message.data)
        finally:
            self._sockets.discard(live)
            self._watch()
        return live

    async def _set(self, live: web.WebSocketResponse, text: str) -> None:
        try:
            wish = json.loads(text)
            stream, name, value = self.hub.stream(int(wish["stream"])), wish["name"], wish["value"]
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
            await live.send_json({"error": f"not understood: {error}"})

    def _watch(self) -> None:
        for stream in self.hub.streams.values():
            stream.watched = bool(self._sockets)

    async def _tell(self) -> None:
        """News to all pages, ten times a second."""
        while True:
            await asyncio.sleep(NEWS_S)
            if not self._sockets:
                continue
            self._watch()
            streams = []
            for stream in self.hub.streams.values():
                seen = stream.scope.take(BANDS, stream.format.sample_rate)
                streams.append({**stream_status(stream), "dry": seen["dry"], "wet_level": seen["wet"]})
            status = self.hub.status()
            news = json.dumps({**status, "streams": streams})
            for live in list(self._sockets):
                try:
                    await asyncio.wait_for(live.send_str(news), 1.0)
                except (ConnectionError, RuntimeError, TimeoutError):
                    self._sockets.discard(live)
                    await live.close()
