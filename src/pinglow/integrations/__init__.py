"""Bridges to other libraries; each is imported only by its own module, and only when used."""
