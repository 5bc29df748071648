"""Graph: the model as nodes of a closed, framework-neutral vocabulary of operations."""

from fanin.graph.node import Graph as Graph
from fanin.graph.node import Kind as Kind
from fanin.graph.node import Node as Node
from fanin.graph.node import Parameter as Parameter
