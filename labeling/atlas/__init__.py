"""The atlas: a finished run as static pages that open from disk, with no network and no framework."""

from gazetteer.labeling.atlas.write import AtlasSummary, write_atlas

__all__ = ["AtlasSummary", "write_atlas"]
