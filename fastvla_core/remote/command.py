"""`fastvla serve`: a policy for robots on other machines."""

from __future__ import annotations

import argparse
import logging
import signal
from pathlib import Path

from fastvla_core.models.vision_tokens.arguments import add_token_arguments, tokens_of
from fastvla_core.remote.address import DEFAULT_PORT, parse_listen
from fastvla_core.remote.dependency import require_grpc
from fastvla_core.signal_flag import SignalFlag

HELP = (
    "Serve a policy through gRPC. On the robot, `checkpoint: grpc://127.0.0.1:PORT` (through an "
    "ssh tunnel) or `grpcs://HOST:PORT` (with TLS) takes the place of a checkpoint. Listens on "
    "this machine only, unless it is given credentials. Runs until Ctrl-C or SIGTERM."
)
_POLL_S = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `fastvla serve`."""
    parser.add_argument(
        "--policy", default="nano", help="folder, shipped name or Hub repository (%(default)s)"
    )
    parser.add_argument(
        "--quantization", choices=("nf4", "int8", "none"), default="nf4",
        help="of the large layers' weights (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto",
        help="where it runs (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=int, default=0, help="CPU threads; 0 leaves PyTorch's choice"
    )
    add_token_arguments(parser)
    parser.add_argument(
        "--listen", default=f"127.0.0.1:{DEFAULT_PORT}", metavar="HOST:PORT",
        help="address; port 0 takes a free one (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--credentials", type=Path, metavar="FOLDER",
        help="cert.pem and key.pem of this server, and ca.pem of its clients or a token",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Load, warm up, listen, and serve until a signal comes.

    Raises:
        FastVLAError: the policy, the address or the credentials are not usable.
    """
    require_grpc()
    from fastvla_core.remote.credentials import load_credentials, server_credentials
    from fastvla_core.remote.served import load_served
    from fastvla_core.remote.service import PolicyServer
    from fastvla_core.robot.contract_file import parse_contract
    from fastvla_core.serving import warm_up_observations

    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    stopped = SignalFlag()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    credentials = load_credentials(args.credentials) if args.credentials else None
    listen = parse_listen(args.listen, secure=credentials is not None)
    # Refused before minutes of loading.
    server_credentials(credentials, listen=listen)
    policy, description = load_served(
        args.policy,
        quantization=args.quantization,
        device=args.device,
        threads=args.threads,
        vision_tokens=tokens_of(args),
    )
    contract = description.contract
    with PolicyServer(
        policy,
        description=description,
        listen=listen,
        credentials=credentials,
        warm_up=warm_up_observations(parse_contract(contract)) if contract is not None else (),
    ) as server:
        print(
            f"'{description.checkpoint}' ({description.quantization or 'full precision'}, "
            f"{description.device}) is served at {server.address}; Ctrl-C stops it",
            flush=True,
        )
        while not stopped.wait(_POLL_S):
            pass
    return 0
