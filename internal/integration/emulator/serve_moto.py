"""Serves moto's Kinesis and DynamoDB on a free port of the loopback interface.

moto's own command has no way to tell which port the kernel chose, nor does it end
with the test that started it.
"""

import logging
import os
import sys
import threading

# boto3 looks for credentials, of which moto has no use.
os.environ.setdefault("AWS_ACCESS_KEY_ID", "moto")
os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "moto")

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server


class RequestHandler(MotoRequestHandler):
    """Keeps connections open: otherwise each request would need one of its own."""

    protocol_version = "HTTP/1.1"


def end_with_the_test():
    """Standard input is a pipe whose other end the test holds."""
    sys.stdin.read()
    os._exit(0)


logging.getLogger("werkzeug").setLevel(logging.ERROR)  # not a line for each request
server = make_server(
    "127.0.0.1",
    0,
    DomainDispatcherApplication(create_backend_app),
    threaded=True,
    request_handler=RequestHandler,
)
threading.Thread(target=end_with_the_test, daemon=True).start()
print("listening 1", server.server_port, flush=True)
server.serve_forever()
