import pytest

from tai_engine.review.guard import Guard

PORT = 8770
HOST = f"127.0.0.1:{PORT}"


@pytest.fixture
def guard():
    return Guard(PORT)


def cookie_of(guard):
    return guard.cookie.partition(";")[0]


def test_the_cookie_is_for_the_page_alone(guard):
    assert guard.cookie.endswith("; Path=/; HttpOnly; SameSite=Strict")
    assert guard.cookie.startswith(f"tai-review-{PORT}=")
    assert guard.token not in guard.cookie
    assert len(guard.token) >= 43  # 256 bits
    assert guard.is_token(guard.token)
    assert not guard.is_token(guard.token[:-1])
    assert not guard.is_token("")
    assert not guard.is_token("ä")
    assert Guard(PORT).token != guard.token


@pytest.mark.parametrize("host", [HOST, f"localhost:{PORT}", f"[::1]:{PORT}"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_page_itself_may_pass(guard, host, method):
    headers = {"host": host, "cookie": cookie_of(guard), "origin": f"http://{host}", "sec-fetch-site": "same-origin"}
    assert guard.refusal(method, headers, with_token=False) is None


@pytest.mark.parametrize(
    ("method", "changes", "reason"),
    [
        ("GET", {"host": "evil.example"}, "this machine alone"),
        ("GET", {"host": "127.0.0.1"}, "this machine alone"),
        ("GET", {"host": "127.0.0.1:9000"}, "this machine alone"),
        ("GET", {"host": f"127.0.0.1.evil.example:{PORT}"}, "this machine alone"),
        ("GET", {"host": ""}, "this machine alone"),
        ("GET", {"cookie": ""}, "Open the address"),
        ("GET", {"cookie": f"tai-review-{PORT}=guess"}, "Open the address"),
        ("GET", {"cookie": "=;=;\x00"}, "Open the address"),
        ("GET", {"origin": "http://127.0.0.1:9000"}, "another page"),
        ("GET", {"origin": "null"}, "another page"),
        ("GET", {"sec-fetch-site": "same-site"}, "another page"),
        ("GET", {"sec-fetch-site": "cross-site"}, "another page"),
        ("POST", {"origin": "https://evil.example"}, "another page"),
        ("POST", {"origin": f"https://{HOST}"}, "another page"),
        ("POST", {"origin": None}, "does not say"),
        ("DELETE", {"origin": None}, "does not say"),
    ],
)
def test_all_others_are_refused(guard, method, changes, reason):
    headers = {"host": HOST, "cookie": cookie_of(guard), "origin": f"http://{HOST}", **changes}
    status, sentence = guard.refusal(method, {k: v for k, v in headers.items() if v is not None}, with_token=False)
    assert status == 403
    assert reason in sentence


def test_with_the_token_a_link_from_elsewhere_opens_the_page(guard):
    headers = {"host": HOST, "sec-fetch-site": "cross-site"}
    assert guard.refusal("GET", headers, with_token=True) is None
    assert guard.refusal("GET", {"host": "evil.example"}, with_token=True) is not None


def test_the_cookie_is_found_among_others(guard):
    headers = {"host": HOST, "cookie": f"a=b; tai-review-9000=x; {cookie_of(guard)}; c=d"}
    assert guard.refusal("GET", headers, with_token=False) is None
