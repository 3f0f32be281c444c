"""What programs can call, called by real clients: gradio's own, and one of the Model Context Protocol."""

import ast
import asyncio
from typing import Any

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, TextContent, Tool

from ui.answering import LoadedFamily

CALLS = {"compare", "score", "tokens"}


@pytest.fixture(scope="module")
def client(address: str) -> Client:
    return Client(address, verbose=False)


@pytest.fixture(scope="module")
def documented(client: Client) -> dict[str, Any]:
    return client.view_api(return_format="dict")["named_endpoints"]


def test_only_what_programs_need_is_documented(documented: dict[str, Any]) -> None:
    assert set(documented) == {f"/{name}" for name in CALLS}


def test_every_parameter_has_a_type_and_every_default_is_known(documented: dict[str, Any]) -> None:
    parameters = {part["parameter_name"]: part for part in documented["/compare"]["parameters"]}
    types = {name: part["python_type"]["type"] for name, part in parameters.items()}
    assert types == {
        "prompt": "str",
        "seed": "int",
        "temperature": "float",
        "top_p": "float",
        "max_new_tokens": "int",
        "chat_format": "bool",
    }
    assert [name for name, part in parameters.items() if not part["parameter_has_default"]] == ["prompt"]
    assert documented["/score"]["returns"][0]["python_type"]["type"] == "float"


def test_three_answers_and_the_same_rewards_for_them(client: Client) -> None:
    answers = client.predict("How are you?", seed=3, max_new_tokens=8, api_name="/compare")
    assert list(answers) == ["base", "sft", "rlhf"]
    assert client.predict("How are you?", seed=3, max_new_tokens=8, api_name="/compare") == answers
    for answer in answers.values():
        assert list(answer) == ["text", "tokens", "stopped", "reward"]
        assert answer["tokens"] <= 8
        reward = client.predict("How are you?", answer["text"], answer["stopped"], api_name="/score")
        assert reward == pytest.approx(answer["reward"])


def test_base_too_can_be_asked_in_the_chat_format(client: Client) -> None:
    asked = {"prompt": "How are you?", "max_new_tokens": 8, "api_name": "/compare"}
    plain, marked = client.predict(**asked), client.predict(**asked, chat_format=True)
    assert marked["base"]["text"] != plain["base"]["text"]
    assert [marked[stage] for stage in ("sft", "rlhf")] == [plain[stage] for stage in ("sft", "rlhf")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"prompt": "x", "chat_format": "yes"}, "chat_format is 'yes'; it must be true or false"),
        ({"prompt": " \n"}, "the prompt is empty"),
        ({"prompt": "a" * 10_000}, "10,000 characters"),
        ({"prompt": 7}, "prompt is 7; it must be a text"),
        ({"prompt": "x", "seed": "first"}, "seed is 'first'; it must be a whole number"),
        ({"prompt": "x", "seed": 0.5}, "seed is 0.5"),
        ({"prompt": "x", "seed": None}, "seed is None"),
        ({"prompt": "x", "temperature": -0.1}, "temperature is -0.1; it must be a number from 0 to 100"),
        ({"prompt": "x", "temperature": True}, "temperature is True"),
        ({"prompt": "x", "top_p": 0}, "top_p is 0; it must be a number above 0 and at most 1"),
        ({"prompt": "x", "top_p": 1.01}, "top_p is 1.01"),
        ({"prompt": "x", "max_new_tokens": 0}, "max_new_tokens is 0; it must be a whole number of at least 1"),
        ({"prompt": "x", "max_new_tokens": 257}, "max_new_tokens is 257; the context has room for 256 tokens"),
    ],
)
def test_what_compare_cannot_do_is_one_clear_line(client: Client, arguments: dict[str, Any], said: str) -> None:
    refused(client, "/compare", arguments, said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"prompt": "", "response": "x"}, "the prompt is empty"),
        ({"prompt": "x", "response": ["y"]}, "response is ['y']; it must be a text"),
        ({"prompt": "x", "response": "y", "finished": 1}, "finished is 1; it must be true or false"),
        ({"prompt": "x", "response": "y" * 1_000_000}, "the answer has 1,000,000 characters; at most 20,000"),
        ({"prompt": "x", "response": ["y" * 1_000_000]}, "it must be a text"),
    ],
)
def test_what_score_cannot_do_is_one_clear_line(client: Client, arguments: dict[str, Any], said: str) -> None:
    refused(client, "/score", arguments, said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"prompt": None}, "prompt is None; it must be a text"),
        ({"prompt": {}}, "prompt is {}; it must be a text"),
        ({"prompt": "x", "stage": ["sft"]}, "there is no stage ['sft']; use one of base, sft, rlhf"),
        ({"prompt": "x", "stage": "y" * 1_000_000}, "; use one of base, sft, rlhf"),
    ],
)
def test_what_tokens_cannot_do_is_one_clear_line(client: Client, arguments: dict[str, Any], said: str) -> None:
    refused(client, "/tokens", arguments, said)


def refused(client: Client, name: str, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(AppError) as caught:
        client.predict(**arguments, api_name=name)
    message = str(caught.value)
    assert said in message
    assert "\n" not in message.strip()
    assert len(message) < 300
    assert "Traceback" not in message


def over_mcp(address: str, *calls: tuple[str, dict[str, Any]]) -> tuple[list[Tool], list[CallToolResult]]:
    """The tools that an MCP client finds at the address, and what they make of the calls."""

    async def ask() -> tuple[list[Tool], list[CallToolResult]]:
        async with (
            streamable_http_client(f"{address}gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = (await session.list_tools()).tools
            return tools, [await session.call_tool(name, arguments) for name, arguments in calls]

    return asyncio.run(ask())


def words(result: CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


def test_the_mcp_tools_are_the_documented_calls(address: str, documented: dict[str, Any]) -> None:
    tools, _ = over_mcp(address)
    assert {f"/{tool.name}" for tool in tools} == set(documented)
    for tool in tools:
        assert tool.description
        assert "Returns:" in tool.description
        assert "\n" not in tool.description
        described = tool.inputSchema["properties"]
        assert [name for name, part in described.items() if not part.get("description")] == []
    (compare,) = [tool for tool in tools if tool.name == "compare"]
    kinds = {name: part["type"] for name, part in compare.inputSchema["properties"].items()}
    assert kinds == {
        "prompt": "string",
        "seed": "integer",
        "temperature": "number",
        "top_p": "number",
        "max_new_tokens": "integer",
        "chat_format": "boolean",
    }


def test_an_mcp_client_compares_and_scores_and_reads_what_is_wrong(address: str, family: LoadedFamily) -> None:
    prompt = "How are you?"
    _, (compared, scored, wrong) = over_mcp(
        address,
        ("compare", {"prompt": prompt, "max_new_tokens": 4}),
        ("score", {"prompt": prompt, "response": "Fine."}),
        ("compare", {"prompt": prompt, "top_p": 0}),
    )
    assert not compared.isError
    assert list(ast.literal_eval(words(compared))) == ["base", "sft", "rlhf"]
    assert not scored.isError
    assert family.reward is not None
    assert float(words(scored)) == pytest.approx(family.reward.scores([(prompt, "Fine.")])[0])
    assert wrong.isError
    assert "top_p is 0" in words(wrong)
    assert "Traceback" not in words(wrong)
