"""Services and clients."""

from __future__ import annotations

import threading

import pytest
from rclpy.executors import MultiThreadedExecutor
from std_srvs.srv import Empty, SetBool, Trigger


def answer(request, response):
    response.success = request.data
    response.message = f"got {request.data}"
    return response


def test_a_call_gets_its_response(ros):
    server, client_node = ros.node("server"), ros.node("client")
    server.create_service(SetBool, "~/set", answer)
    client = client_node.create_client(SetBool, "/server/set")
    assert client.wait_for_service(timeout_sec=5.0)
    response = ros.result(client.call_async(SetBool.Request(data=True)))
    assert (response.success, response.message) == (True, "got True")


def test_each_client_gets_its_own_responses(ros):
    server = ros.node("server")
    server.create_service(SetBool, "set", answer)
    clients = [ros.node(f"client{n}").create_client(SetBool, "set") for n in range(3)]
    assert all(client.wait_for_service(timeout_sec=5.0) for client in clients)
    futures = [
        client.call_async(SetBool.Request(data=bool(n % 2))) for n, client in enumerate(clients)
    ]
    assert [ros.result(future).success for future in futures] == [False, True, False]


def test_many_calls_at_once_are_all_answered(ros):
    node = ros.node("node")
    node.create_service(SetBool, "set", answer)
    client = node.create_client(SetBool, "set")
    assert client.wait_for_service(timeout_sec=5.0)
    futures = [client.call_async(SetBool.Request(data=bool(n % 2))) for n in range(8)]
    assert [ros.result(future).success for future in futures] == [False, True] * 4


def test_services_without_fields_work(ros):
    node, called = ros.node("node"), []
    node.create_service(Empty, "reset", lambda q, r: called.append(1) or r)
    client = node.create_client(Empty, "reset")
    assert client.wait_for_service(timeout_sec=5.0)
    assert ros.result(client.call_async(Empty.Request())) == Empty.Response()
    assert called == [1]


def test_a_service_callback_may_be_a_coroutine_that_calls_another_service(ros):
    node = ros.node("node")
    node.create_service(SetBool, "inner", answer)
    client = ros.node("inner_client").create_client(SetBool, "inner")

    async def outer(request, response):
        inner = await client.call_async(SetBool.Request(data=True))
        response.success, response.message = True, inner.message
        return response

    from rclpy.callback_groups import ReentrantCallbackGroup

    node.create_service(Trigger, "outer", outer, callback_group=ReentrantCallbackGroup())
    caller = ros.node("caller").create_client(Trigger, "outer")
    assert client.wait_for_service(timeout_sec=5.0)
    assert caller.wait_for_service(timeout_sec=5.0)
    assert ros.result(caller.call_async(Trigger.Request())).message == "got True"


def test_waiting_for_a_service_that_is_not_there_ends(ros):
    client = ros.node("client").create_client(Trigger, "nobody")
    assert not client.service_is_ready()
    assert not client.wait_for_service(timeout_sec=0.05)


def test_a_service_that_goes_is_not_ready_any_more(ros):
    server, client_node = ros.node("server"), ros.node("client")
    service = server.create_service(Trigger, "go", lambda q, r: r)
    client = client_node.create_client(Trigger, "go")
    assert client.wait_for_service(timeout_sec=5.0)
    server.destroy_service(service)
    assert ros.until(lambda: not client.service_is_ready())


def test_a_blocking_call_from_another_thread_returns(ros):
    node = ros.node("node")
    node.create_service(SetBool, "set", answer)
    client = node.create_client(SetBool, "set")
    assert client.wait_for_service(timeout_sec=5.0)
    found = []
    thread = threading.Thread(
        target=lambda: found.append(client.call(SetBool.Request(data=True), timeout_sec=5.0))
    )
    thread.start()
    assert ros.until(lambda: found)
    thread.join()
    assert found[0].success


def test_a_blocking_call_without_an_answer_gives_none(ros):
    client = ros.node("client").create_client(Trigger, "nobody")
    assert client.call(Trigger.Request(), timeout_sec=0.05) is None


def test_a_wrong_request_or_response_is_refused(ros):
    node = ros.node("node")
    client = node.create_client(SetBool, "set")
    with pytest.raises(TypeError):
        client.call_async(Trigger.Request())
    node.create_service(SetBool, "set", lambda q, r: None)
    assert client.wait_for_service(timeout_sec=5.0)
    client.call_async(SetBool.Request())
    with pytest.raises(TypeError):
        ros.until(lambda: False)


def test_a_callback_of_a_multi_threaded_executor_may_block_on_a_call(ros):
    node, inner = ros.node("node"), ros.node("inner")
    inner.create_service(SetBool, "inner", answer)
    client = ros.node("inner_client").create_client(SetBool, "inner")
    assert client.wait_for_service(timeout_sec=5.0)
    found = []

    def outer(request, response):
        found.append(client.call(SetBool.Request(data=True), timeout_sec=5.0))
        return response

    node.create_service(Trigger, "outer", outer)
    caller = ros.node("caller").create_client(Trigger, "outer")
    assert caller.wait_for_service(timeout_sec=5.0)
    executor = MultiThreadedExecutor(4, context=ros.context)
    for one in ros.nodes:
        executor.add_node(one)
    executor.spin_until_future_complete(caller.call_async(Trigger.Request()), 5.0)
    executor.shutdown()
    assert found[0].success
