"""NIR, the neuromorphic intermediate representation: graphs of two states as spiking networks of one step."""

from maqd.export.nir.model import Importer, NirModel, Reading, nir_graph, nir_model, save_nir

__all__ = ["Importer", "NirModel", "Reading", "nir_graph", "nir_model", "save_nir"]
