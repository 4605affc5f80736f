"""Every backbone that is served, at a small size: what it errs and what it costs."""
