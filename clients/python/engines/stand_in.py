# SPDX-License-Identifier: Apache-2.0
"""A module that stands in for an engine's own."""

import types


class StandIn(types.ModuleType):
    def __init__(self, name):
        super().__init__(name)
        self.__path__ = []

    def __getattr__(self, name):
        """A name that annotates, or a class that nothing here is an instance of."""
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})
