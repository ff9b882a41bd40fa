"""Where configuration lives: one protocol (``interface``), one real engine behind each implementation."""
