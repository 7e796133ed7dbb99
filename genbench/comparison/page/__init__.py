"""What `genbench report` puts on a page: a study's content, its plots, its template."""
