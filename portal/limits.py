"""The limits that are no settings: what anybody may send and hold before the portal knows who it is.

`docs/limits.md` has all limits in one table, with those of `portal.config`. They are asked in this order: size,
permission, money, work.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# -- the head of a request -------------------------------------------------------------------------------------------
# Servers take 8 KiB (Apache, for a field) to 32 KiB (nginx, for all); browsers send up to 16 KiB of cookies.
HEADER_BYTES: Final = 64 * KIB  # all fields together, with what frames the body: sizes of chunks, trailers
HEADER_FIELDS: Final = 100
URL_BYTES: Final = 16 * KIB
PIPELINED_REQUESTS: Final = 16  # that wait on one connection while the first is answered
HEAD_SECONDS: Final = 20  # until the whole head of a request is here
KEEP_ALIVE_SECONDS: Final = 75  # without a request on a connection that has had one, as nginx keeps it
LEAVE_SECONDS: Final = 1  # for which an idle connection is kept while the server stops, for what is on its way
WORKER_ANSWER_SECONDS: Final = 60  # until a worker process answers the one that watches over it, its start included

# -- the body of a request -------------------------------------------------------------------------------------------
# A body may take this long, and a second for each so many bytes: 32 MiB may take 35 minutes.
BODY_SECONDS: Final = 30
BODY_BYTES_PER_SECOND: Final = 16 * KIB
# A body may come in so many pieces, and one more for each 64 bytes: a chunk of one byte costs as much as one of 1,000.
BODY_PIECES: Final = 1000
BYTES_PER_PIECE: Final = 64
PAGE_BYTES: Final = 4 * MIB  # of a form on a page; the largest is a list of keys that is pasted
ANONYMOUS_PAGE_BYTES: Final = 128 * KIB  # of one that somebody sends who has not signed in: reading it takes time
PAGES_BYTES: Final = 64 * MIB  # of all forms on pages that a worker receives at once; an address has a quarter of it
FORM_FIELDS: Final = 5000  # of a form on a page: the admin's lists have a few for each row
FORM_PARTS: Final = 100  # of a form that stores a file
FORM_BYTES: Final = 64 * KIB  # of its names, headers and fields beside the file
WEBSOCKET_BYTES: Final = 16 * MIB  # of one message, unfolded: 15 MiB of audio, as OpenAI's realtime API takes it
WEBSOCKET_EARLY_BYTES: Final = 4 * KIB  # that a client may send before its handshake has been answered
REALTIME_FIRST_SECONDS: Final = 30.0  # for the event that names the model of a session, where the address does not
CLIENT_SECRETS: Final = 1000  # of one user that have not expired
CLIENT_SECRET_BYTES: Final = 512 * KIB  # of the session of one
SDP_BYTES: Final = 64 * KIB  # of a WebRTC offer, and of its answer
REALTIME_CALLS: Final = 100  # of one user that run at the same time, whatever the limits of its tokens
WEBSOCKET_FRAMES: Final = 1000  # within a second, and one more for each BYTES_PER_PIECE

# -- JSON under /v1 --------------------------------------------------------------------------------------------------
# Each member or item costs up to 2 µs of a worker's time, however short it is. 300,000 tokens are the most that
# OpenAI takes in one request for embeddings, and 10,000 messages with calls of tools have 80,000 members.
JSON_MEMBERS: Final = 100_000  # of all objects together
JSON_FIELDS: Final = 1_000  # members of the outermost object
JSON_VALUES: Final = 400_000  # items, members after the first, objects and lists
LARGE_BODY_BYTES: Final = 256 * KIB  # of which permission, limits and money are asked before it is parsed

# -- what /v1 holds in memory -----------------------------------------------------------------------------------------
UNCOUNTED_BYTES: Final = 64 * KIB  # of a body that are not worth counting
ANSWER_BYTES: Final = 128 * MIB  # of an upstream's answer that is read whole: 2,048 embeddings have 75 MiB
LIST_BYTES: Final = 32 * MIB  # of an upstream's list of models, prices or balance: models have some KiB each
LISTED_MODELS: Final = 20_000  # of one upstream; relays have some thousands

# -- what is stored for a user ---------------------------------------------------------------------------------------
ROW_BYTES: Final = 512  # that each file, response, item, line and so on counts beside its content

CACHE_SWITCHES_AN_HOUR: Final = 50  # from one channel's caches for one reason that are rows of their own
CACHE_SWITCH_DAYS: Final = 92  # for which switches from warm caches are kept

# -- in the background -----------------------------------------------------------------------------------------------
INTERACTION_SECONDS: Final = 2 * 3600  # that an interaction may run; Google ends those of its agents after an hour

# -- batches ---------------------------------------------------------------------------------------------------------
BATCHES_AT_ONCE: Final = 4  # that one worker runs; a user who has none there may begin one all the same
BATCHES: Final = 32  # that it runs at most
BATCHES_ENDING: Final = 96  # besides, that only finish the requests they have begun; all of one user: half of BATCHES
BATCH_INPUT_BYTES: Final = 64 * MIB  # of the requests of one user's running batches, unless it is a single one
BATCH_INPUTS_BYTES: Final = 512 * MIB  # of those of all users

# -- answers ---------------------------------------------------------------------------------------------------------
# A client that reads less than this in so many seconds has gone: what it does not read waits in memory.
READ_SECONDS: Final = 60
READ_BYTES: Final = 64 * KIB
PIECE_BYTES: Final = 256 * KIB  # of a long answer that are given to the connection at a time

# -- connections -----------------------------------------------------------------------------------------------------
RESERVED_DESCRIPTORS: Final = 64  # for the database, files, logs, and the answers to what is refused
PAGES_AT_ONCE: Final = 4  # pages that one worker makes at once: each takes the interpreter from the requests of /v1
PAGES_WAITING: Final = 50  # of one address that wait for their turn
PAGE_WAIT_SECONDS: Final = 30
PAGE_TURN_SECONDS: Final = 60  # after which a page leaves its turn to others, such as on a disk that hangs

# -- waits -----------------------------------------------------------------------------------------------------------
DATABASE_SECONDS: Final = 10  # for a connection, a lock, and a statement of a request to /v1
QUERY_SECONDS: Final = 30  # for another statement: a report may read much
JOB_QUERY_SECONDS: Final = 300  # for one of periodic work
THREAD_SECONDS: Final = 15  # that a request to /v1 waits for what a thread asks the database, its turn included
FILE_SECONDS: Final = (
    120  # that it waits for what a thread does with a file: a piece of it, or the joining of its parts
)
REDIS_SECONDS: Final = 3  # for a connection, and for an answer
REDIS_WAIT_SECONDS: Final = 1  # that requests wait for one that has gone, such as while it is restarted
REDIS_RETRY_SECONDS: Final = 0.2  # between tries to reach it
OUTSIDE_CALLS: Final = 8  # to one mail server, sign-in provider or upstream that pages make at once
OUTSIDE_WAITING: Final = 32  # calls to it that wait for their turn
PAGE_OUTSIDE_SECONDS: Final = 60  # that one page has for all of them
MAIL_SECONDS: Final = 20  # until the mail server has taken a mail
MAIL_STEP_SECONDS: Final = 10  # for each of its answers
PROVIDER_SECONDS: Final = 10  # for a whole answer of a sign-in provider
WEBHOOK_SECONDS: Final = 15  # until a webhook has answered
UPSTREAM_WAITING: Final = 500  # requests of one worker that wait for a connection to an upstream
UPSTREAM_WAIT_SECONDS: Final = 5.0  # for which they do
NAME_SECONDS: Final = 10  # until the name of an upstream is resolved
STOP_SECONDS: Final = 10  # until all is written when the portal stops, or given up
READY_SECONDS: Final = 3  # that /readyz waits for the database and for Redis


def client_connections(descriptors: int) -> int:
    """The connections of clients that a worker may hold which may open so many descriptors.

    Each may need another one to its upstream.
    """
    return max(16, (descriptors - RESERVED_DESCRIPTORS) // 2)


def upstream_connections(wanted: int, descriptors: int) -> int:
    """The connections to upstreams that a worker may hold, of those that the setting allows."""
    return min(wanted, client_connections(descriptors))
