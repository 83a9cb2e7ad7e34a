"""From a path or URL to a database that is ready: settings, errors as advice, schema brought up to date.

Knows databases; knows nothing of events.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError

from genrec.errors import StoreError
from genrec.store.tables import metadata

MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "genrec_version"
BUSY_S = 60.0
"""How long a writer of a SQLite file waits for another one."""

_SQLITE = {
    "SQLITE_FULL": "Free some space and run the same command again: what was stored before stays.",
    "SQLITE_IOERR": "Check the disk and its free space, then run the same command again: what was stored before stays.",
    "SQLITE_READONLY": "Give yourself write permission on the file and its folder, or copy it to a place of your own.",
    "SQLITE_BUSY": "Another process is writing to it; wait for that one to finish and run the same command again.",
    "SQLITE_CORRUPT": 'Restore a backup, or rescue what is readable with: sqlite3 FILE ".recover" | sqlite3 NEW_FILE',
    "SQLITE_NOTADB": "Is this the right path? genrec keeps its store in a SQLite file of its own.",
    "SQLITE_CANTOPEN": "Create the folder first, and check that you may write there.",
}
_POSTGRES = {
    "53": "The server has run out of disk, memory or connections; once it has some, run the same command again.",
    "25006": "The server or the role is read-only; connect to the primary, with a role that may write.",
    "28": "Check user and password in the URL.",
    "3D": "Create the database first: createdb NAME",
    "42501": "Let this role create tables in the schema, or name a schema of its own in the URL.",
    "": "Check that the server is running and that the URL names its host, port, user and database.",
}


def connect(where: str | Path) -> Engine:
    """Open a database and bring its schema up to date.

    Args:
        where: A path (a SQLite file, made if missing) or a SQLAlchemy URL of SQLite or PostgreSQL.

    Raises:
        StoreError: If it cannot be opened, belongs to something else, or was written by a newer genrec.
    """
    url = _url(where)
    sqlite = url.get_backend_name() == "sqlite"
    arguments = {"timeout": BUSY_S} if sqlite and "timeout" not in url.query else {}
    try:
        engine = create_engine(url, connect_args=arguments, hide_parameters=True)
    except ModuleNotFoundError as error:
        raise StoreError(
            f"a PostgreSQL store needs the package {error.name}, which is not installed",
            hint="pip install 'genrec[postgres]'",
        ) from error
    event.listen(engine, "handle_error", _advise)
    if sqlite:
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    try:
        _upgrade(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def writing(engine: Engine) -> Connection:
    """A connection whose transactions may write: in SQLite they take the one write lock at their beginning."""
    return engine.connect().execution_options(genrec_begin="BEGIN IMMEDIATE")


def outside_transactions(engine: Engine) -> Connection:
    """A connection on which every statement stands alone, as maintenance statements must."""
    if engine.dialect.name == "sqlite":
        return engine.connect().execution_options(genrec_begin=None)
    return engine.connect().execution_options(isolation_level="AUTOCOMMIT")


def copy_rows(connection: Connection, statement: str, rows: Iterable[Sequence[object]]) -> None:
    """Send rows through PostgreSQL's COPY, which is many times faster than INSERT."""
    driver = connection.connection.driver_connection
    assert driver is not None
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _advice(error, connection.engine.url) from error


def _advice(error: BaseException, url: URL) -> StoreError:
    """Say what a driver's error means and what to do next."""
    message = " ".join(str(error).split())
    where = url.database if url.get_backend_name() == "sqlite" else url.render_as_string(hide_password=True)
    if isinstance(error, sqlite3.Error):
        code = str(getattr(error, "sqlite_errorname", ""))
        hint = next((advice for name, advice in _SQLITE.items() if code.startswith(name)), None)
    else:
        state = str(getattr(error, "sqlstate", None) or "")
        hint = next((advice for start, advice in _POSTGRES.items() if start and state.startswith(start)), None)
        hint = hint or (_POSTGRES[""] if not state else None)
    return StoreError(f"the store {where} failed: {message}", hint=hint)


def _url(where: str | Path) -> URL:
    if isinstance(where, Path) or "://" not in where:
        return URL.create("sqlite", database=str(where))
    try:
        url = make_url(where)
    except (ArgumentError, ValueError) as error:  # the latter for a port that is no number
        raise StoreError(f"not a database URL: {error}", hint="e.g. postgresql://user@localhost/genrec") from error
    backend = {"postgres": "postgresql"}.get(url.get_backend_name(), url.get_backend_name())
    if backend not in ("sqlite", "postgresql"):
        raise StoreError(f"genrec keeps its store in SQLite or PostgreSQL, not in {backend}")
    if not url.database or url.database == ":memory:":
        raise StoreError(
            f"the URL {url.render_as_string()} names no database",
            hint="e.g. sqlite:///genrec.db or postgresql://user@localhost/genrec",
        )
    return url.set(drivername="sqlite" if backend == "sqlite" else "postgresql+psycopg")


def _advise(context: ExceptionContext) -> None:
    if context.engine is not None and context.sqlalchemy_exception is not None:  # else an interrupt, or a bug
        raise _advice(context.original_exception, context.engine.url) from context.original_exception


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # the driver leaves transactions to `_begin_sqlite`
    for attempt in range(100):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:
            # While a file becomes WAL for the first time, SQLite refuses the other process at once: no timeout helps.
            if error.sqlite_errorname != "SQLITE_BUSY" or attempt == 99:
                raise
            time.sleep(0.05)
    for setting in (
        "synchronous = FULL",  # a commit is on the disk before it returns
        "foreign_keys = ON",
        "secure_delete = ON",  # what is deleted is overwritten
        "cache_size = -65536",  # 64 MiB; an import looks up ids all over the index
        "wal_autocheckpoint = 16384",  # pages: an import's batches share the cost of writing the main file
        "journal_size_limit = 67108864",
    ):
        connection.execute(f"PRAGMA {setting}")


def _begin_sqlite(connection: Connection) -> None:
    statement = connection.get_execution_options().get("genrec_begin", "BEGIN")
    if statement:
        connection.exec_driver_sql(statement)


_upgrading = threading.Lock()  # alembic keeps the migration in progress in a global


def _upgrade(engine: Engine) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    script = ScriptDirectory.from_config(config)
    known = {step.revision for step in script.walk_revisions()}

    def is_behind(connection: Connection) -> bool:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        version = context.get_current_revision()
        if version is not None and version not in known:
            raise StoreError(
                f"the store was written by a newer genrec (schema {version}; this one knows up to "
                f"{script.get_current_head()})",
                hint="pip install --upgrade genrec",
            )
        return version != script.get_current_head()

    with engine.begin() as connection:
        if not is_behind(connection):
            return
    with _upgrading, writing(engine) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": VERSION_TABLE})
        if is_behind(connection):  # nobody else did it while we waited for the lock
            # Only under the lock: another process's migration can end between two looks without one.
            if not inspect(connection).has_table(VERSION_TABLE):
                _check_free(connection)
            config.attributes.update(connection=connection, version_table=VERSION_TABLE)
            command.upgrade(config, "head")


def _check_free(connection: Connection) -> None:
    """Refuse a database that something else lives in."""
    taken = set(inspect(connection).get_table_names())
    if connection.dialect.name == "postgresql":
        taken &= set(metadata.tables)  # a database may be shared as long as no name clashes
    if taken:
        raise StoreError(
            f"{connection.engine.url.render_as_string()} already holds tables that are not genrec's: "
            + ", ".join(sorted(taken)[:5]),
            hint="Name another file, or a database or schema of genrec's own.",
        )
