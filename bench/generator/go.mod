module trunkline/bench/generator

go 1.21
