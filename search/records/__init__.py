"""The ground floor: trial records, requirements, dominance, Parquet, the run folder."""
