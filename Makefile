# eqnn is headers only: this file builds the examples, the tests and the benchmarks. "make" explains.

CC      ?= cc
CXX     ?= c++
PREFIX  ?= /usr/local
BUILD   ?= build
JOBS    ?= $(shell nproc 2>/dev/null || echo 2)
SECONDS ?= 10
DIRS    ?= tests/golden
CFLAGS  ?= -O2 -g

WARN    := -Wall -Wextra -Wpedantic -Wshadow -Wconversion
FLAGS   := -std=c99 $(WARN) $(CFLAGS)
LIBS    := -lm -pthread

# OpenMP where the compiler has it (OMP=0: not), a BLAS and zlib when asked for.
OMP     ?= $(shell echo 'int main(void) { return 0; }' | \
             $(CC) -fopenmp -x c - -o /dev/null 2>/dev/null && echo 1 || echo 0)
ifeq ($(OMP),1)
FLAGS   += -fopenmp
else
FLAGS   += -Wno-unknown-pragmas
endif
ifeq ($(BLAS),1)
FLAGS   += -DEQNN_CBLAS
LIBS    += -lopenblas
endif
ifeq ($(ZLIB),1)
FLAGS   += -DEQNN_ZLIB
LIBS    += -lz
endif
ifeq ($(STRICT),1)
FLAGS   += -DEQNN_STRICT
endif
ifeq ($(DOUBLE),1)
REAL    := f64
else
REAL    := f32
endif
f32     :=
f64     := -DEQNN_DOUBLE

HEADERS  := $(wildcard eqnn*.h eqnn*.cuh)
EXAMPLES := $(patsubst examples/%.c,%,$(wildcard examples/*.c))
TESTS    := $(patsubst tests/%.c,%,$(shell grep -l '^TEST_MAIN' tests/*.c))
BENCHES  := $(patsubst tests/%.c,%,$(wildcard tests/bench*.c))
FUZZERS  := $(patsubst tests/%.c,%,$(wildcard tests/fuzz_*.c))

help:
	@echo 'make run [ARGS="..."]       the trajectory experiment (ARGS="--help" lists its options)'
	@echo 'make test                   every test in float and double; ends with "N passed, N failed"'
	@echo 'make examples               all programs of examples/, into $(BUILD)/$(REAL)/examples/'
	@echo 'make bench                  how fast the kernels and the models are here'
	@echo 'make golden DIRS="a b"      compares with folders of golden files of other programs'
	@echo 'make fuzz [SECONDS=10]      random input for every reader (clang)'
	@echo 'make install [PREFIX=/usr/local] [DESTDIR=]'
	@echo 'make clean'
	@echo 'with CC= CXX= CFLAGS= DOUBLE=1 OMP=0 BLAS=1 ZLIB=1 STRICT=1'

# What was built with other flags is built again.
$(BUILD)/flags: FORCE
	@mkdir -p $(BUILD)
	@echo '$(CC) $(FLAGS) $(LIBS)' | cmp -s - $@ || echo '$(CC) $(FLAGS) $(LIBS)' > $@

# Rules for one scalar type. The implementation is compiled once and linked to every test.
define rules
$(BUILD)/$(1)/eqnn.o: $(HEADERS) $(BUILD)/flags
	@mkdir -p $$(@D)
	@for h in $(filter %.h,$(HEADERS)); do echo "#include \"$$$$h\""; done | \
	    $(CC) $(FLAGS) $($(1)) -I. -DEQNN_IMPLEMENTATION -x c -c - -o $$@

$(BUILD)/$(1)/%: tests/%.c tests/test.h tests/json.h tests/lifts.h $(BUILD)/$(1)/eqnn.o
	@$(CC) $(FLAGS) $($(1)) $$< $(BUILD)/$(1)/eqnn.o -o $$@ $(LIBS)

$(BUILD)/$(1)/examples/%: examples/%.c $(HEADERS) $(BUILD)/flags
	@mkdir -p $$(@D)
	@$(CC) $(FLAGS) $($(1)) -I. $$< -o $$@ $(LIBS)

# For the tests: without the implementation, which is compiled already.
$(BUILD)/$(1)/quick/%: examples/%.c $(BUILD)/$(1)/eqnn.o
	@mkdir -p $$(@D)
	@(echo '#line 1 "$$<"'; sed 's/^#define EQNN_IMPLEMENTATION.*//' $$<) | \
	    $(CC) $(FLAGS) $($(1)) -I. -include stdlib.h -include string.h -include math.h -x c - -x none $(BUILD)/$(1)/eqnn.o -o $$@ $(LIBS)
endef
$(eval $(call rules,f32))
$(eval $(call rules,f64))

run: $(BUILD)/$(REAL)/examples/trajectory
	@$< $(ARGS)

examples: $(EXAMPLES:%=$(BUILD)/$(REAL)/examples/%)

build-tests: $(foreach r,f32 f64,$(TESTS:%=$(BUILD)/$(r)/%) $(BUILD)/$(r)/golden)
build-tests: $(EXAMPLES:%=$(BUILD)/f32/quick/%)

test:
	-@$(MAKE) --no-print-directory -k -j$(JOBS) build-tests
	@JOBS=$(JOBS) EXAMPLES=$(BUILD)/f32/quick sh tests/run.sh \
	    $(foreach r,f32 f64,$(TESTS:%=$(BUILD)/$(r)/%) "$(BUILD)/$(r)/golden -q tests/golden") \
	    $(EXAMPLES:%=examples/%.c)

# For sanitizers and for other lanes: the test programs in float only; and those that use threads.
test-float: $(TESTS:%=$(BUILD)/f32/%) $(BUILD)/f32/golden
	@JOBS=$(JOBS) sh tests/run.sh $(TESTS:%=$(BUILD)/f32/%) "$(BUILD)/f32/golden -q tests/golden"

test-threads: $(BUILD)/f32/threads
	@sh tests/run.sh $<

golden: $(BUILD)/$(REAL)/golden
	@$< $(DIRS)

bench: $(BENCHES:%=$(BUILD)/$(REAL)/%)
	@for b in $^; do $$b $(ARGS) || exit 1; done

# A fuzzer holds the implementation itself, so that it is watched as well. Without the optimizer: clang
# takes minutes over the kernels otherwise, which readers do not need.
$(BUILD)/fuzz/%: tests/%.c $(HEADERS)
	@mkdir -p $(@D)
	@clang -g -O0 $(WARN) -DEQNN_NO_VECTORS -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all $< -o $@ -lm

fuzz: $(FUZZERS:%=$(BUILD)/fuzz/%)
	@for f in $(FUZZERS); do \
	    mkdir -p $(BUILD)/fuzz/corpus_$$f; \
	    $(BUILD)/fuzz/$$f -max_total_time=$(SECONDS) -rss_limit_mb=2048 -max_len=4096 -verbosity=0 \
	        -artifact_prefix=$(BUILD)/fuzz/ $(BUILD)/fuzz/corpus_$$f || exit 1; done

install:
	@install -d $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/lib/pkgconfig
	@install -m 644 $(HEADERS) $(DESTDIR)$(PREFIX)/include
	@printf 'prefix=%s\n\nName: eqnn\nDescription: equivariant neural networks in C headers\nVersion: %s\nCflags: -I$${prefix}/include\nLibs: -lm\n' \
	    '$(PREFIX)' "$$(sed -n 's/^#define EQNN_VERSION "\(.*\)"/\1/p' eqnn.h)" \
	    > $(DESTDIR)$(PREFIX)/lib/pkgconfig/eqnn.pc

clean:
	@rm -rf $(BUILD)

FORCE:
.PHONY: help run test test-float test-threads build-tests examples golden bench fuzz install clean FORCE
.DELETE_ON_ERROR:
