# heapcensus: `make demo` and `make check` are the two commands; `make help` lists the rest.
# Non-recursive, everything under build/. One static archive per room: a call against the
# dependency law (docs/ARCHITECTURE.md) fails to link in `make check`.

VERSION := 0.1.0
prefix ?= /usr/local
bindir ?= $(prefix)/bin
mandir ?= $(prefix)/share/man
DESTDIR ?=
BUILD ?= build
CC ?= cc
AR ?= ar
OPT ?= -O2 -g
PKGS := libelf libdw jansson zlib libarchive
# Lazy, so that `make deps` and `make help` work before the packages are there.
PKG_CFLAGS = $(shell pkg-config --cflags $(PKGS))
PKG_LIBS = $(shell pkg-config --libs $(PKGS))
WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef
ALL_CFLAGS = -std=gnu11 $(WARN) $(OPT) -I. -DHEAPCENSUS_VERSION='"$(VERSION)"' \
             -fno-strict-aliasing -pthread -MMD -MP $(SAN) $(PKG_CFLAGS) $(CFLAGS)
ALL_LDFLAGS = -pthread $(SAN) $(LDFLAGS)

# ---- rooms ----
BASE_SRC := $(wildcard formats/base/*.c)
FORMATS_SRC := $(wildcard formats/*.c)
WALKER_SRC := $(wildcard walker/*.c)
CPYTHON_SRC := $(wildcard walker/cpython/*.c walker/cpython/layouts/*.c)
GLIBC_SRC := $(wildcard walker/glibc/*.c walker/glibc/layouts/*.c)
TARGET_SRC := $(wildcard inspector/target/*.c)
MAIN_SRC := $(filter-out inspector/layoutgen.c,$(wildcard inspector/*.c))

obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
room = $(BUILD)/lib$(1).a
# From the user to the used: each archive may only need those to its right.
ROOMS := $(call room,target) $(call room,walker) $(call room,cpython) $(call room,glibc) \
         $(call room,walkcore) $(call room,formats) $(call room,base)
WALKCORE_SRC := walker/mem.c walker/mem_image.c walker/mem_cache.c walker/parallel.c walker/vma.c \
                walker/note.c walker/blockmap.c walker/settle.c walker/blocks.c
WALK_SRC := $(filter-out $(WALKCORE_SRC),$(WALKER_SRC))

all: $(BUILD)/heapcensus $(BUILD)/layoutgen

$(call room,base): $(call obj,$(BASE_SRC))
$(call room,formats): $(call obj,$(FORMATS_SRC))
$(call room,walkcore): $(call obj,$(WALKCORE_SRC))
$(call room,walker): $(call obj,$(WALK_SRC))
$(call room,cpython): $(call obj,$(CPYTHON_SRC))
$(call room,glibc): $(call obj,$(GLIBC_SRC))
$(call room,target): $(call obj,$(TARGET_SRC))
$(BUILD)/lib%.a:
	@mkdir -p $(@D)
	@rm -f $@
	$(AR) rcsD $@ $^

# What is asked of each of millions of blocks: a tenth faster.
HOT_SRC := walker/blocks.c $(addprefix walker/cpython/,blocks_collect.c cpython_objects.c \
           extension.c kinds.c look.c object_sums.c objects.c own.c owners.c pools.c types.c)
$(call obj,$(HOT_SRC)): OPT := $(OPT:-O2=-O3)

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -c -o $@ $<

$(BUILD)/heapcensus: $(call obj,$(MAIN_SRC)) $(ROOMS)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(PKG_LIBS)

$(BUILD)/layoutgen: $(call obj,inspector/layoutgen.c) $(ROOMS)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(PKG_LIBS)

# ---- tests: unit tests and fuzz smokes run under the sanitizers ----
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
UNIT := $(patsubst tests/unit/%.c,$(BUILD)/san/unit/%,$(wildcard tests/unit/test_*.c))
FUZZ := $(patsubst tests/fuzz/%.c,$(BUILD)/san/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
E2E_BIN := $(patsubst tests/e2e/%.c,$(BUILD)/e2e/%,$(wildcard tests/e2e/*.c))
BENCH_BIN := $(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(wildcard tests/bench/*.c))
SAN_ROOMS := $(patsubst $(BUILD)/%,$(BUILD)/san/%,$(ROOMS))

# The same rules once more with the sanitizers on, in a build directory of their own.
$(SAN_ROOMS) $(BUILD)/san/heapcensus &: FORCE
	$(MAKE) --no-print-directory BUILD=$(BUILD)/san SAN='$(SANITIZE)' OPT='-O1 -g' all

$(BUILD)/san/unit/%: tests/unit/%.c $(SAN_ROOMS)
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(SANITIZE) -o $@ $< $(SAN_ROOMS) $(ALL_LDFLAGS) $(PKG_LIBS)

$(BUILD)/san/fuzz/%: tests/fuzz/%.c $(SAN_ROOMS)
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(SANITIZE) -DFUZZ_MAIN -o $@ $< $(SAN_ROOMS) $(ALL_LDFLAGS) $(PKG_LIBS)

# Long runs: clang's libFuzzer on each fuzzer, FUZZ_SECONDS each.
FUZZ_SECONDS ?= 120
fuzz: deps
	tests/fuzz/long.sh $(FUZZ_SECONDS)

# Links all rooms but only what it calls; malloc_target stays free of our code.
$(BUILD)/e2e/%: tests/e2e/%.c $(ROOMS)
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -o $@ $< $(ROOMS) $(ALL_LDFLAGS) $(PKG_LIBS)

$(BUILD)/bench/%: tests/bench/%.c $(ROOMS)
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -o $@ $< $(ROOMS) $(ALL_LDFLAGS) $(PKG_LIBS)

tests-build: all $(UNIT) $(FUZZ) $(E2E_BIN) $(BENCH_BIN)

check: deps
	$(MAKE) --no-print-directory tests-build
	tests/run.sh

check-unit: deps
	$(MAKE) --no-print-directory tests-build
	tests/run.sh unit

bench: deps
	$(MAKE) --no-print-directory all $(BENCH_BIN)
	tests/bench/run.sh

demo: deps
	$(MAKE) --no-print-directory all
	tests/demo.sh

# Installs what is missing, by apt-get; does nothing when everything is there.
deps:
	@tests/lib/deps.sh $(DEPS_FOR)
check bench: DEPS_FOR = check

format:
	clang-format -i $$(git ls-files '*.c' '*.h' | grep -v '^walker/cpython/layouts/')

install: all
	install -d $(DESTDIR)$(bindir) $(DESTDIR)$(mandir)/man1 $(DESTDIR)$(mandir)/man5
	install -m 755 $(BUILD)/heapcensus $(DESTDIR)$(bindir)/heapcensus
	install -m 644 docs/man/*.1 $(DESTDIR)$(mandir)/man1
	install -m 644 docs/man/*.5 $(DESTDIR)$(mandir)/man5

uninstall:
	rm -f $(DESTDIR)$(bindir)/heapcensus
	cd docs/man && for m in *.1; do rm -f $(DESTDIR)$(mandir)/man1/$$m; done
	cd docs/man && for m in *.5; do rm -f $(DESTDIR)$(mandir)/man5/$$m; done

clean:
	rm -rf $(BUILD)/stripped $(BUILD)/matrix.* $(BUILD)/types.* $(BUILD)/tracemalloc.* $(BUILD)/cores $(BUILD)/obj $(BUILD)/san $(BUILD)/e2e $(BUILD)/bench $(BUILD)/*.a \
	    $(BUILD)/heapcensus $(BUILD)/layoutgen

help:
	@echo 'make              build/heapcensus (needs the packages; see make deps)'
	@echo 'make demo         install what is missing, build, and show a census, a snapshot and a comparison'
	@echo 'make check        install what is missing, build, run all tests'
	@echo 'make check-unit   only the unit tests and the fuzz smokes'
	@echo 'make bench        speed and pause as ratios to a plain copy'
	@echo 'make fuzz         long fuzzing with clang (FUZZ_SECONDS=120 each)'
	@echo 'make install      prefix=/usr/local DESTDIR='
	@echo 'make deps         only install the Debian packages'
	@echo 'make format       clang-format over the tree'
	@echo 'make clean        remove what was built (the Debian roots in build/roots stay)'

FORCE:
.PHONY: all check check-unit bench demo deps fuzz format install uninstall clean help tests-build FORCE
.DELETE_ON_ERROR:
-include $(shell find $(BUILD) -path $(BUILD)/roots -prune -o -name '*.d' -type f -print 2>/dev/null)
