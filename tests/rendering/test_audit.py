"""The audit knows jobs: what runs has its hold, what has ended has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from oanim_server.ledger.audit import audit
from oanim_server.ledger.ids import account_text
from oanim_server.ledger.operations import Reserve
from oanim_server.ledger.values import SERVER

if TYPE_CHECKING:
    from tests.rendering.house import House

# A render that is not as its hold is, and what is said of it.
UNLIKE = {
    "state = 4, finished_at = 1": "it has ended, and its hold is ACTIVE",
    "state = 3, finished_at = 1, video_bytes = 1": "it has ended, and its hold is ACTIVE",
}
UNLIKE_AT_ITS_END = {
    "state = 1, finished_at = NULL, video_bytes = 0": "it runs, and its hold is COMMITTED",
    "state = 4, video_bytes = 0": "its hold is COMMITTED, RELEASED is right",
}


def changed(house: House, key: tuple[int, int], changes: str) -> list[str]:
    """What the audit says once a render's row was changed behind the server's back; then all is as it was."""
    is_it = f"WHERE wallet_id = {key[0]} AND number = {key[1]}"

    def change(statement: str) -> None:
        house.do(
            house.ledger.write(
                lambda connection, _now: connection.execute(text(f"UPDATE renders SET {statement} {is_it}"))
            )
        )

    ((state, finished_at, video_bytes),) = house.select(
        f"SELECT state, finished_at, video_bytes FROM renders {is_it}"
    )
    change(changes)
    problems = audit(house.process.database).problems
    change(f"state = {state}, finished_at = {finished_at or 'NULL'}, video_bytes = {video_bytes}")
    assert audit(house.process.database).problems == []
    return problems


def test_a_render_and_its_hold_that_do_not_fit_are_found(house: House) -> None:
    waits = house.submitted(house.account())
    where = f"{account_text(waits.wallet_id)}: render {waits.number}: "
    for changes, said in UNLIKE.items():
        assert changed(house, waits.key, changes) == [where + said]
    worker = house.worker()
    done, _ = worker.complete(worker.leased())
    for changes, said in UNLIKE_AT_ITS_END.items():
        assert changed(house, done.key, changes) == [where + said]


def test_a_hold_of_the_server_s_that_no_job_has_is_found(house: House) -> None:
    account = house.account()
    reserve = Reserve(
        wallet_id=account,
        caller=account,
        opener=SERVER,
        api_key_id="k",
        idempotency_key="k",
        amount_micros=5,
        ttl=None,
    )
    held = house.do(house.ledger.submit(reserve)).reservation
    assert held is not None
    said = f"reservation {held.number}: the server holds it, and no job has it"
    assert audit(house.process.database).problems == [f"{account_text(account)}: {said}"]
