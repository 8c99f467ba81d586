"""Recovery: repair what cutting a model damaged, from texts without labels."""

from paretoformer.spaces.recovery.distillation import Distillation
from paretoformer.spaces.recovery.least_squares import repair
from paretoformer.spaces.recovery.repair_report import Recovered
from paretoformer.spaces.recovery.teacher import Teacher

__all__ = ["Distillation", "Recovered", "Teacher", "repair"]
