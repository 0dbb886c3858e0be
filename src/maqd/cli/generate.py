"""`maqd generate`."""

import json
import sys
import time

from maqd.cli.graphs import open_file
from maqd.cli.options import Options, UsageError, some_path, whole
from maqd.errors import ConfigError, EngineError
from maqd.language.file import model_of
from maqd.language.sampling import Sampling
from maqd.runtime.engine import check_threads
from maqd.runtime.language import LanguageEngine


def command(arguments: list[str]) -> int:
    """Run `maqd generate`; the exit status."""
    parser = Options(
        usage="maqd generate MODEL [TEXT] [--tokens N] [--temperature X] [--top-k K] [--top-p P] [--seed N] "
        "[--engine NAME] [--threads N] [--json]",
        description="Continue a text with a language model in a .maqd file.",
    )
    parser.add_argument("model", metavar="MODEL", type=some_path, help="a .maqd file of a language model")
    parser.add_argument(
        "text", metavar="TEXT", nargs="?", default="", help="what comes before; a line break without it"
    )
    parser.add_argument("--tokens", metavar="N", type=whole, default=200, help="how many bytes to generate (200)")
    parser.add_argument(
        "--temperature", metavar="X", type=float, default=0.8, help="divides the scores; 0: the best (0.8)"
    )
    parser.add_argument("--top-k", metavar="K", type=whole, help="draw from the k best bytes only")
    parser.add_argument(
        "--top-p", metavar="P", type=float, default=1.0, help="draw from the fewest of probability P (1)"
    )
    parser.add_argument("--seed", metavar="N", type=whole, default=0, help="of the random generator (0)")
    parser.add_argument("--engine", metavar="NAME", help="native or numpy")
    parser.add_argument("--threads", metavar="N", type=whole, default=1, help="of the native engine (1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    options = parser.read(arguments)
    try:
        sampling = Sampling(
            temperature=options.temperature, top_k=options.top_k, top_p=options.top_p, seed=options.seed
        )
        if options.tokens < 0:
            raise ConfigError(f"tokens must be 0 or positive, got {options.tokens}")
        check_threads(options.threads)
    except (ConfigError, EngineError) as error:
        raise UsageError(str(error)) from error
    engine = LanguageEngine(model_of(open_file(options.model)), engine=options.engine, threads=options.threads)
    pieces = engine.generate(options.text, count=options.tokens, sampling=sampling)
    begin, text = time.monotonic(), []
    try:
        if not options.json:
            sys.stdout.write(options.text)
        for piece in pieces:
            text.append(piece)
            if not options.json:
                sys.stdout.write(piece)
                sys.stdout.flush()
    finally:  # also after Ctrl-C: what was generated stays on a line of its own
        if not options.json:
            sys.stdout.write("\n")
            sys.stdout.flush()
    seconds = time.monotonic() - begin
    if options.json:
        found = {"model": str(options.model), "text": options.text, "continuation": "".join(text)}
        rate = options.tokens / seconds if seconds else 0.0
        print(
            json.dumps({**found, "tokens": options.tokens, "engine": engine.name, "tokens_per_second": round(rate, 1)})
        )
    return 0
