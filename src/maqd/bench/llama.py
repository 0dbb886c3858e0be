"""llama.cpp beside the engine: scores and speed of a GGUF file, by the package llama-cpp-python."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maqd.errors import EngineError
from maqd.optional import require


class LlamaCpp:
    """Scores of the next token, token after token, as `maqd.runtime.language_native.NativeLanguage` gives them.

    Args:
        path: A GGUF file.
        threads: Of a call.
        context: The most tokens that it sees.

    Raises:
        MissingDependencyError: llama-cpp-python is not installed.
        EngineError: It cannot load the file.
    """

    def __init__(self, path: Path | str, *, threads: int = 1, context: int) -> None:
        module: Any = require("llama_cpp", "the comparison with llama.cpp")
        self._module = module
        self.version = str(module.__version__)
        self._quiet = module.llama_log_callback(lambda *_: None)
        module.llama_log_set(self._quiet, None)
        module.llama_backend_init()
        self._model = module.llama_model_load_from_file(str(path).encode(), module.llama_model_default_params())
        if not self._model:
            raise EngineError(f"llama.cpp cannot load {path}; maqd export --to gguf writes files that it can")
        options = module.llama_context_default_params()
        options.n_ctx = options.n_batch = options.n_ubatch = context
        options.n_threads = options.n_threads_batch = threads
        self._context = module.llama_init_from_model(self._model, options)
        self.vocabulary = int(module.llama_vocab_n_tokens(module.llama_model_get_vocab(self._model)))
        self._batch = module.llama_batch_init(context, 0, 1)
        self._position, self._most = 0, context

    def reset(self) -> None:
        """Forget all tokens."""
        self._module.llama_memory_clear(self._module.llama_get_memory(self._context), True)
        self._position = 0

    def feed(self, tokens: Sequence[int] | NDArray[np.integer], *, every: bool = True) -> NDArray[np.float32]:
        """Take further tokens.

        Args:
            tokens: At most as many as the context still holds.
            every: Whether scores are wanted after every token, or after the last one only.

        Returns:
            float32, tokens x vocabulary, or 1 x vocabulary.

        Raises:
            EngineError: llama.cpp does not take them.
        """
        batch, count = self._batch, len(tokens)
        if not 1 <= count <= self._most - self._position:
            raise EngineError(f"llama.cpp has a context of {self._most} tokens and seen {self._position}, got {count}")
        batch.n_tokens = count
        for place, token in enumerate(tokens):
            batch.token[place] = int(token)
            batch.pos[place] = self._position + place
            batch.n_seq_id[place] = 1
            batch.seq_id[place][0] = 0
            batch.logits[place] = every or place == count - 1
        if self._module.llama_decode(self._context, batch):
            raise EngineError(f"llama.cpp does not take {count} tokens after {self._position}")
        self._position += count
        wanted = count if every else 1
        found = self._module.llama_get_logits(self._context)
        return np.ctypeslib.as_array(found, (wanted, self.vocabulary)).copy()

    def close(self) -> None:
        """Give its memory back."""
        self._module.llama_batch_free(self._batch)
        self._module.llama_free(self._context)
        self._module.llama_model_free(self._model)
