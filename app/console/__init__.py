"""The console: Carillon in a browser. It speaks to the front door as any client does, by the ordinary API."""
