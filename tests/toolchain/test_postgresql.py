"""The PostgreSQL of the tests is what the tests rely on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import OperationalError

from tests.postgresql import MEMORY, Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        result = connection.execute(text(statement))
        return [tuple(row) for row in result] if result.returns_rows else []


def data_of(url: str) -> Path:
    return Path(str(execute(url, "SHOW data_directory")[0][0]))


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    with Cluster({}) as cluster:
        yield cluster


def test_a_copy_of_a_template_has_its_rows_and_its_own_life(postgresql_cluster: Cluster) -> None:
    template = postgresql_cluster.create_database()
    execute(template, "CREATE TABLE coin AS SELECT 1 AS micros")
    copy = postgresql_cluster.create_database(template)
    execute(copy, "UPDATE coin SET micros = 2")
    assert (execute(template, "SELECT * FROM coin"), execute(copy, "SELECT * FROM coin")) == ([(1,)], [(2,)])


def test_a_dropped_database_is_gone(postgresql_cluster: Cluster) -> None:
    url = postgresql_cluster.create_database()
    postgresql_cluster.drop_database(url)
    with pytest.raises(OperationalError, match="does not exist"):
        execute(url, "SELECT 1")


def test_a_cluster_without_settings_is_durable_and_survives_a_crash(own_cluster: Cluster) -> None:
    url = own_cluster.create_database()
    execute(url, "CREATE TABLE coin AS SELECT 1 AS micros")
    own_cluster.stop("immediate")
    own_cluster.start()
    assert (execute(url, "SHOW fsync"), execute(url, "SELECT * FROM coin")) == ([("on",)], [(1,)])
    assert not data_of(url).is_relative_to(MEMORY)


@pytest.mark.parametrize("fsync", ["on", "off"])
def test_a_removed_cluster_leaves_nothing(fsync: str) -> None:
    cluster = Cluster({"fsync": fsync})
    cluster.start()
    folder = data_of(cluster.create_database()).parent
    assert folder.is_dir()
    cluster.remove()
    assert (cluster.pid, cluster.directory.exists(), folder.exists()) == (None, False, False)


def test_a_cluster_that_does_not_start_leaves_nothing() -> None:
    cluster = Cluster({"shared_buffers": "none"})
    with pytest.raises(AssertionError, match="shared_buffers"), cluster:
        pass
    assert (cluster.pid, cluster.directory.exists()) == (None, False)
