from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette._utils import get_route_path

from qwen_fp8_ops.gate import Gate
from qwen_fp8_ops.gate.routes import ROUTES, is_local, route_path

OPEN = [(method, route.path) for route in ROUTES.values() for method in (*route.methods, "OPTIONS") if (method, route.path) != ("GET", "/service")]
CLOSED = [
    "/", "", "/v1", "/v1/", "/v1/models/", "/V1/models", "/v1/Models", "//v1/models", "/v1//models", "/v1/models/x", "/./v1/models", "/v1/../v1/models", "/v1/models ",
    "/v1/models\x00", "/v1/models;x", "/v1/models?", "/v1/models#", "/health/", "/healthz", "/metrics/", "/service/", "/services", "/docs", "/redoc", "/openapi.json",
    "/invocations", "/ping", "/tokenize", "/detokenize", "/tokenizer_info", "/pooling", "/classify", "/score", "/v1/score", "/rerank", "/v1/rerank", "/v2/rerank",
    "/v1/embeddings", "/v1/responses", "/v1/messages", "/v1/audio/transcriptions", "/v1/chat/completions/render", "/v1/chat/completions/batch", "/v1/completions/render",
    "/inference/v1/generate", "/generative_scoring", "/scale_elastic_ep", "/is_scaling_elastic_ep", "/load", "/version", "/server_info", "/sleep", "/wake_up",
    "/is_sleeping", "/collective_rpc", "/reset_prefix_cache", "/reset_mm_cache", "/start_profile", "/stop_profile", "/v1/load_lora_adapter", "/v1/unload_lora_adapter",
    "/abort_requests", "/pause", "/resume", "/cohere/v2/chat", "/v1/realtime", "/favicon.ico", "/.env", "/%76%31/models", "/v1/models\n", "/\u0076\u0031/mode\u217cs",
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), OPEN)
def test_promised_routes_reach_the_app(home: Any, app: Any, ask: Any, method: str, path: str) -> None:
    assert ask(Gate(app), method, path, client=("127.0.0.1", 1)).status == 200
    assert [(scope["method"], scope["path"]) for scope in app.scopes] == [(method, path)]


@pytest.mark.parametrize("path", CLOSED)
def test_everything_else_is_closed_with_and_without_a_key(home: Any, app: Any, ask: Any, path: str) -> None:
    home.with_keys()
    gate = Gate(app)
    for method in ("GET", "POST", "OPTIONS", "DELETE"):
        for key in ("", "alices-secret-key"):
            reply = ask(gate, method, path, key=key)
            assert reply.status == 404
            assert "/v1/chat/completions" in reply.error["message"]
    assert app.scopes == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "get", "PROPFIND"])
@pytest.mark.parametrize("path", list(ROUTES))
def test_wrong_methods_are_told_the_right_ones(home: Any, app: Any, ask: Any, method: str, path: str) -> None:
    if method in ROUTES[path].methods:
        return
    reply = ask(Gate(app), method, path)
    assert reply.status == 405
    assert reply.error["type"] == "MethodNotAllowedError"
    assert reply.headers["allow"].split(", ") == [*ROUTES[path].methods, "OPTIONS"]
    assert app.scopes == []


SEGMENTS = st.lists(st.sampled_from(["api", "v1", "models", "", "a"]), max_size=4).map("/".join)


@given(SEGMENTS, SEGMENTS)
def test_the_path_is_the_one_that_the_router_will_match(root: str, rest: str) -> None:
    for scope in ({"path": root + rest, "root_path": root}, {"path": "/" + rest, "root_path": "/" + root}, {"path": rest, "root_path": ""}, {"path": rest}):
        assert route_path(scope) == get_route_path(scope)


def test_a_root_path_is_taken_off_and_only_a_whole_one(home: Any, app: Any, ask: Any) -> None:
    gate = Gate(app)
    assert ask(gate, path="/api/v1/models", root_path="/api").status == 200
    assert ask(gate, path="/v1/models", root_path="/api").status == 200, "a proxy that strips the prefix itself"
    assert ask(gate, path="/apiv1/models", root_path="/api").status == 404
    assert ask(gate, path="/api/api/v1/models", root_path="/api").status == 404


@pytest.mark.parametrize(
    ("client", "headers", "local"),
    [
        (("127.0.0.1", 1), [], True), (("127.8.8.8", 1), [], True), (("::1", 1), [], True), (("::ffff:127.0.0.1", 1), [], True), (("10.0.0.1", 1), [], False),
        (("128.0.0.1", 1), [], False), (("::2", 1), [], False), (None, [], False), (("", 0), [], False), (("127.0.0.1", 1), [(b"x-forwarded-for", b"127.0.0.1")], False),
        (("127.0.0.1", 1), [(b"forwarded", b"for=1.2.3.4")], False), (("127.0.0.1", 1), [(b"x-real-ip", b"1.2.3.4")], False),
    ],
)  # fmt: skip
def test_local_is_only_who_came_without_a_proxy(client: Any, headers: Any, local: bool) -> None:
    assert is_local({"client": client, "headers": headers}) is local
