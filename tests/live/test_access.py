"""Who may talk to the server."""

import asyncio
import json

import aiohttp
import pytest

from sage_jax.errors import UserError
from sage_jax.live.server import LiveServer
from tests.live.clients import world
from tests.live.stand_in import ABOUT, StandInHost


def test_who_may_connect(tmp_path):
    async def run():
        async with world(tmp_path) as all_:
            client = await all_.client()
            async with client.get("") as answer:
                text = await answer.text()
                assert answer.status == 200 and "sage live" in text
                assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
            for headers, status in (
                ({"Host": "evil.example"}, 403),
                ({"Host": "evil.example:80"}, 403),
                ({"Host": "a b"}, 403),
                ({"Host": "[1:2]"}, 403),
                ({"Origin": "http://["}, 403),
                ({"Host": "localhost:9"}, 200),  # a forwarded port
                ({"Origin": "http://evil.example"}, 403),
                ({"Origin": "null"}, 403),
                ({"Origin": f"http://127.0.0.1:{all_.serving.port}"}, 200),
            ):
                async with client.get("", headers=headers) as answer:
                    assert answer.status == status, headers
            with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                await all_.connect(Origin=f"http://localhost:{all_.serving.port}")
            paths = {"server.py": 404, "../server.py": 404, "socket": 400, "sounds/x/0.wav": 404, "main.js": 200}
            for path, status in paths.items():
                async with client.get(path) as answer:
                    assert answer.status == status, path

    asyncio.run(run())


def test_the_token(tmp_path):
    async def run():
        async with world(tmp_path, address="0.0.0.0") as all_:
            token = all_.serving.access.token
            assert len(token) > 20 and all_.serving.url.endswith(f"/{token}/")
            base = f"http://127.0.0.1:{all_.serving.port}"
            async with aiohttp.ClientSession() as client:
                paths = {f"/{token}/": 200, f"/{token}/main.js": 200, "/": 403, "/main.js": 403, f"/{token[:-1]}./": 403}
                for path, status in paths.items():
                    async with client.get(base + path) as answer:
                        assert answer.status == status, path
                async with client.ws_connect(f"{base}/{token}/socket") as socket:
                    await socket.send_str('{"type": "hello"}')
                    assert json.loads((await socket.receive()).data)["type"] == "welcome"
                with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                    await client.ws_connect(f"{base}/socket")
        with pytest.raises(UserError, match="at least 16"):
            LiveServer(StandInHost(), ABOUT, address="0.0.0.0", port=0, token="short")

    asyncio.run(run())
