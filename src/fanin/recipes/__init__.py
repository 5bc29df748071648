"""Graph -> Plan: what to draw for each parameter, and why."""

from fanin.recipes.data import calibrated as calibrated
from fanin.recipes.make import make_plan as make_plan
from fanin.recipes.named import RECIPES as RECIPES
from fanin.recipes.plan import Diff as Diff
from fanin.recipes.plan import Entry as Entry
from fanin.recipes.plan import Plan as Plan
