"""Write what was found: masks, overlays, tables."""
