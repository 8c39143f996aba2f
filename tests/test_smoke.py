from llmr.sandbox.control import Control
from tests.harness import Server


def test_auto_answers_in_both_forms(server: Server) -> None:
    whole = server.chat(model="auto")
    assert whole.status == 200
    assert whole.headers["x-llmr-model"] == whole.json["model"]
    stream = server.chat(model="auto", stream=True)
    assert stream.events()[-1] == "[DONE]"
    assert "simulated" in stream.text()


def test_a_failing_first_choice_is_unseen(server: Server, sandbox: Control) -> None:
    first = server.chat(model="auto").headers["x-llmr-model"]
    sandbox.fault(first, {"kind": "status", "status": 503})
    again = server.chat(model="auto")
    assert again.status == 200
    assert again.headers["x-llmr-model"] != first
    assert again.headers["x-llmr-attempts"] == "2"
