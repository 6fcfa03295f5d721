"""Events of tasks go out a few times a second, many in a message."""

from __future__ import annotations

from typing import Any

from kombu.asynchronous import Hub, get_event_loop, set_event_loop

from batchq.queue.app import make_app
from batchq.settings import Settings


def test_events_of_tasks_gather_until_they_are_due_and_go_in_one_message(
    redis_url: str, redis_client: Any, wait_for: Any
) -> None:
    app, before = make_app(Settings(broker_url=redis_url)), get_event_loop()
    hub = Hub()
    set_event_loop(hub)
    listener = redis_client.pubsub(ignore_subscribe_messages=True)
    listener.psubscribe("*celeryev*")
    listener.get_message(timeout=5)
    at_once: list[None] = []

    with app.connection_for_write() as connection:
        sender = app.events.Dispatcher(
            connection, buffer_group=["task"], on_send_buffered=lambda: at_once.append(None)
        )
        for number in range(50):
            sender.send("task-received", uuid=str(number))
        assert listener.get_message(timeout=0) is None
        heard: list[Any] = []

        def is_heard() -> bool:
            hub.fire_timers()
            heard.extend(filter(None, [listener.get_message(timeout=0.02)]))
            return bool(heard)

        wait_for(is_heard, "the events were sent")
    listener.close()
    app.close()
    hub.close()
    set_event_loop(before)

    assert at_once == []
    assert len(heard) == 1
