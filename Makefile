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
# Programs of several processes are built by MPI's compiler, which calls ours; those of GPUs with CUDA.
MPICC     ?= mpicc
MPIRUN    ?= mpirun
CUDA_HOME ?= /usr/local/cuda
MPI       := OMPI_CC='$(CC)' MPICH_CC='$(CC)' $(MPICC)
HAVE_MPI  := $(shell command -v $(MPICC) 2>/dev/null)
# LAMMPS: the folder of its headers; its library is where the linker looks. Debian 12 installs headers
# that include one of fmt which it does not install: what they need of that stands in for it.
LAMMPS      ?= /usr/include/lammps
LAMMPS_LIBS ?= -llammps
MPICXX      ?= mpicxx
MPI_CXX     := OMPI_CXX='$(CXX)' MPICH_CXX='$(CXX)' $(MPICXX)
CXXFLAGS_LAMMPS = -x c++ -std=c++17 $(filter-out -std=c99 -DEQNN_CUDA,$(FLAGS)) -DOMPI_SKIP_MPICXX -DMPICH_SKIP_MPICXX \
                  -I. -isystem $(LAMMPS) $(if $(wildcard $(LAMMPS)/fmt/format.h),,-isystem $(BUILD)/lammps)
# CUDA=1: programs can run on a GPU; the kernels are an object of their own.
NVCC      ?= $(firstword $(shell command -v nvcc 2>/dev/null) $(CUDA_HOME)/bin/nvcc)
NVFLAGS   ?= -O3 -arch=native
NV        := $(NVCC) -x cu -std=c++17 $(NVFLAGS) -Xcompiler -fno-threadsafe-statics,-fno-exceptions
ifeq ($(STRICT),1)
NV        += -DEQNN_STRICT -fmad=false
endif
ifeq ($(CUDA),1)
FLAGS     += -DEQNN_CUDA
LIBS      := -L$(CUDA_HOME)/lib64 -Wl,-rpath,$(CUDA_HOME)/lib64 -lcudart -lcublas $(LIBS)
gpu        = $(BUILD)/$(1)/eqnn_cuda.o
endif
# The kernels run on a processor too (tests/cuda_emulate.h), with fibers that the sanitizers do not know.
CUDA_TEST := $(if $(findstring -fsanitize,$(CFLAGS)),,$(shell echo 'int main() { return 0; }' | \
               $(CXX) -std=c++17 -x c++ - -o /dev/null 2>/dev/null && echo $(CXX)))
# What a GPU would not read for where it begins traps, if the compiler can do that.
ALIGNED   := -DEMULATE_ALIGNED -fsanitize=alignment -fsanitize-undefined-trap-on-error
ALIGNED   := $(if $(CUDA_TEST),$(shell echo 'int main() { return 0; }' | \
               $(CXX) $(ALIGNED) -x c++ - -o /dev/null 2>/dev/null && echo $(ALIGNED)))
ifeq ($(DOUBLE),1)
REAL    := f64
else
REAL    := f32
endif
f32     :=
f64     := -DEQNN_DOUBLE

HEADERS  := $(wildcard eqnn*.h eqnn*.cuh)
DDP      := ddp_mpi ddp_nccl
EXAMPLES := $(filter-out $(DDP),$(patsubst examples/%.c,%,$(wildcard examples/*.c)))
TESTS    := $(patsubst tests/%.c,%,$(shell grep -l '^TEST_MAIN' tests/*.c))
BENCHES  := $(patsubst tests/%.c,%,$(wildcard tests/bench*.c))
FUZZERS  := $(patsubst tests/%.c,%,$(wildcard tests/fuzz_*.c))

help:
	@echo 'make run [ARGS="..."]       the trajectory experiment (ARGS="--help" lists its options)'
	@echo 'make test                   the tests in float and double; ends with "N passed, N failed"'
	@echo 'make examples               all programs of examples/, into $(BUILD)/$(REAL)/examples/'
	@echo 'make ddp                    examples/ddp_mpi.c: one network, several processes (needs mpicc)'
	@echo 'make ddp_nccl               examples/ddp_nccl.c: the same on several GPUs (mpicc, CUDA and NCCL)'
	@echo 'make lammps                 examples/pair_eqnn.cpp: LAMMPS with a network (mpicxx, liblammps)'
	@echo 'make lammps_plugin          the same as a plug-in, pair_eqnn.so (LAMMPS=folder of its headers)'
	@echo 'make test-lammps            its forces, pressures and energies beside those of silicon.c'
	@echo 'make bench                  how fast the kernels and the models are here'
	@echo 'make golden DIRS="a b"      compares with folders of golden files of other programs'
	@echo 'make fuzz [SECONDS=10]      random input for every reader (clang)'
	@echo 'make install [PREFIX=/usr/local] [DESTDIR=]'
	@echo 'make clean'
	@echo 'with CC= CXX= CFLAGS= DOUBLE=1 OMP=0 BLAS=1 ZLIB=1 STRICT=1 CUDA=1 MPICC= MPICXX= MPIRUN= CUDA_HOME= LAMMPS='

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

$(BUILD)/$(1)/%: tests/%.c tests/test.h tests/json.h tests/lifts.h tests/memory.h tests/molecules.h $(BUILD)/$(1)/eqnn.o $(call gpu,$(1))
	@$(CC) $(FLAGS) $($(1)) $$< $(BUILD)/$(1)/eqnn.o $(call gpu,$(1)) -o $$@ $(LIBS)

$(BUILD)/$(1)/device: tests/device.h
$(BUILD)/$(1)/kernels: tests/forms.h
$(BUILD)/$(1)/device: private FLAGS += -O1
$(BUILD)/$(1)/ipi: examples/ipi.h

# Not optimized: that would take longer than it saves.
$(BUILD)/$(1)/cuda: tests/cuda.c tests/cuda_forms.h tests/cuda_emulate.h tests/test.h $(HEADERS) $(BUILD)/flags
	@mkdir -p $$(@D)
ifeq ($(CUDA_TEST),)
	@printf '#!/bin/sh\necho "skipped: the kernels of a GPU (no C++ compiler, or a sanitizer)"\necho "0 passed, 0 failed"\n' > $$@
	@chmod +x $$@
else
	@$(CUDA_TEST) -x c++ -std=c++17 $(WARN) -Wno-unknown-pragmas $(CFLAGS) -O0 -g0 $(ALIGNED) -DEQNN_NO_VECTORS $($(1)) $$< -o $$@ -lm
endif

$(BUILD)/$(1)/examples/%: examples/%.c examples/ipi.h $(HEADERS) $(BUILD)/flags $(call gpu,$(1))
	@mkdir -p $$(@D)
	@$(CC) $(FLAGS) $($(1)) -I. $$< $(call gpu,$(1)) -o $$@ $(LIBS)

# For the tests: without the implementation, which is compiled already.
$(BUILD)/$(1)/quick/%: examples/%.c examples/ipi.h $(BUILD)/$(1)/eqnn.o $(call gpu,$(1))
	@mkdir -p $$(@D)
	@(echo '#line 1 "$$<"'; sed 's/^#define EQNN_IMPLEMENTATION.*//' $$<) | \
	    $(CC) $(FLAGS) $($(1)) -I. -Iexamples -D_DEFAULT_SOURCE=1 -include stdlib.h -include string.h -include math.h -x c - \
	    -x none $(BUILD)/$(1)/eqnn.o $(call gpu,$(1)) -o $$@ $(LIBS)

$(BUILD)/$(1)/quick/ddp_mpi: examples/ddp_mpi.c examples/ddp.h $(BUILD)/$(1)/eqnn.o
	@mkdir -p $$(@D)
	@(echo '#line 1 "$$<"'; sed 's/^#define EQNN_IMPLEMENTATION.*//' $$<) | \
	    $(MPI) $(FLAGS) $($(1)) -I. -Iexamples -x c - -x none $(BUILD)/$(1)/eqnn.o -o $$@ $(LIBS)

# Several processes, and several GPUs.
$(BUILD)/$(1)/examples/ddp_mpi: examples/ddp_mpi.c examples/ddp.h $(HEADERS) $(BUILD)/flags
	@mkdir -p $$(@D)
	@$(MPI) $(FLAGS) $($(1)) -I. $$< -o $$@ $(LIBS)

$(BUILD)/$(1)/examples/ddp_nccl: examples/ddp_nccl.c examples/ddp.h $(HEADERS) $(BUILD)/$(1)/eqnn_cuda.o
	@mkdir -p $$(@D)
	@$(MPI) $(FLAGS) $($(1)) -DEQNN_CUDA -I. -isystem $(CUDA_HOME)/include $$< $(BUILD)/$(1)/eqnn_cuda.o \
	    -o $$@ -L$(CUDA_HOME)/lib64 -lnccl -lcudart -lcublas -lstdc++ $(LIBS)

# LAMMPS with a pair style, as a program and as a plug-in.
$(BUILD)/$(1)/quick/lmp_eqnn: examples/pair_eqnn.cpp $(BUILD)/lammps/fmt/format.h $(BUILD)/$(1)/eqnn.o $(call gpu,$(1))
	@mkdir -p $$(@D)
	@(echo '#line 1 "$$<"'; sed 's/^#define EQNN_.*//' $$<) | \
	    $(MPI_CXX) $(CXXFLAGS_LAMMPS) $($(1)) - -x none $(BUILD)/$(1)/eqnn.o $(call gpu,$(1)) -o $$@ $(LAMMPS_LIBS) $(LIBS)

$(BUILD)/$(1)/examples/lmp_eqnn: examples/pair_eqnn.cpp eqnn.h $(BUILD)/lammps/fmt/format.h $(BUILD)/flags
	@mkdir -p $$(@D)
	@$(MPI_CXX) $(CXXFLAGS_LAMMPS) $($(1)) $$< -o $$@ $(LAMMPS_LIBS) $(LIBS)

$(BUILD)/$(1)/examples/pair_eqnn.so: examples/pair_eqnn.cpp eqnn.h $(BUILD)/lammps/fmt/format.h $(BUILD)/flags
	@mkdir -p $$(@D)
	@$(MPI_CXX) $(CXXFLAGS_LAMMPS) $($(1)) -DPAIR_EQNN_PLUGIN $(if $(wildcard $(LAMMPS)/version.h),-include $(LAMMPS)/version.h) \
	    -fPIC -fvisibility=hidden -shared $$< -o $$@ $(LIBS)

$(BUILD)/$(1)/eqnn_cuda.o: eqnn_cuda.cuh eqnn.h $(BUILD)/flags
	@mkdir -p $$(@D)
	@$(NV) $($(1)) -c $$< -o $$@
endef
$(eval $(call rules,f32))
$(eval $(call rules,f64))

$(BUILD)/lammps/fmt/format.h:
	@test -e $(LAMMPS)/pair.h || { echo 'no LAMMPS in $(LAMMPS): set LAMMPS= to the folder of its headers' \
	    '(Debian: apt install liblammps-dev)'; exit 1; }
	@mkdir -p $(@D)
	@printf '%s\n' '#pragma once' 'namespace fmt {' 'class string_view;' 'class format_args;' \
	    'template <typename... A, typename S> format_args make_args_checked(const S &, A &&...);' '}' > $@

run: $(BUILD)/$(REAL)/examples/trajectory
	@$< $(ARGS)

ddp: $(BUILD)/$(REAL)/examples/ddp_mpi

ddp_nccl: $(BUILD)/$(REAL)/examples/ddp_nccl

lammps: $(BUILD)/$(REAL)/examples/lmp_eqnn

lammps_plugin: $(BUILD)/$(REAL)/examples/pair_eqnn.so

examples: $(EXAMPLES:%=$(BUILD)/$(REAL)/examples/%)

# Devices that are played, in double: too long for every day; .ci/run tries them, too.
tests = $(addprefix $(BUILD)/$(1)/,$(if $(filter f64,$(1)),$(filter-out cuda device,$(TESTS)),$(TESTS)))

build-tests: $(foreach r,f32 f64,$(call tests,$(r)) $(BUILD)/$(r)/golden)
build-tests: $(EXAMPLES:%=$(BUILD)/f32/quick/%) $(if $(HAVE_MPI),$(BUILD)/f32/quick/ddp_mpi)

test:
	-@$(MAKE) --no-print-directory -k -j$(JOBS) build-tests
	@JOBS=$(JOBS) EXAMPLES=$(BUILD)/f32/quick CC='$(CC)' MPICC='$(MPICC)' MPIRUN='$(MPIRUN)' sh tests/run.sh \
	    $(foreach r,f32 f64,$(call tests,$(r)) "$(BUILD)/$(r)/golden -q tests/golden") \
	    $(EXAMPLES:%=examples/%.c) "sh tests/ddp.sh $(BUILD)/f32/quick/ddp_mpi" \
	    "sh tests/shared.sh $(BUILD)/shared"

test-lammps: $(BUILD)/f32/quick/silicon $(BUILD)/f32/quick/lmp_eqnn
	@MPIRUN='$(MPIRUN)' sh tests/lammps.sh $(BUILD)/f32/quick

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
.PHONY: help run ddp ddp_nccl lammps lammps_plugin test test-float test-threads test-lammps build-tests examples golden bench fuzz install clean FORCE
.DELETE_ON_ERROR:
