"""Every page of HTML: its template, style, table and picture."""
