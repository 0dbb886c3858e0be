"""The command line of a configuration: dotted options and YAML files, parsed by jsonargparse."""

import contextlib
import enum
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

# Parsers of one process come from here only; the library warns of methods that its older versions lack.
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")

import argparse

import yaml
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import register_type

from maqd.data.config import Source
from maqd.errors import ConfigError, MaqdError
from maqd.models.config import Architecture
from maqd.nn.config import Affine, Norm, Profile
from maqd.training.config import Device, Optimizer, Schedule, TrainConfig
from maqd.training.plain import check_keys, dotted_keys, from_plain, parse_member, unknown_key

T = TypeVar("T")
ENUMS: tuple[type[enum.Enum], ...] = (Affine, Architecture, Device, Norm, Optimizer, Profile, Schedule, Source)


class UsageError(Exception):
    """The command line or a configuration file has something the command does not know; exit status 2."""


class CommandParser(argparse.ArgumentParser):
    """A plain parser whose errors are one line."""

    def error(self, message: str) -> Any:
        """Raise `UsageError` in place of printing the usage."""
        raise UsageError(message)
