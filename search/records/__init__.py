"""Records: trial records, requirements, dominance, Parquet, the run folder."""
