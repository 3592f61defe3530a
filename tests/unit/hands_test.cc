// SPDX-License-Identifier: GPL-2.0
#include "policy/hands.h"

#include <gtest/gtest.h>

namespace {

using core::VsdId;
using policy::Hands;

const VsdId kOne{1};
const VsdId kOther{2};

TEST(Hands, WhatNobodyTouchesIsCalm) {
  const Hands hands;
  EXPECT_TRUE(hands.calm_since(kOne, hands.moment()));
}

TEST(Hands, ALeaseThatIsBeingGivenIsNotTakenAgain) {
  Hands hands;
  EXPECT_TRUE(hands.begin(kOne));
  EXPECT_FALSE(hands.begin(kOne));
  EXPECT_TRUE(hands.change(kOne));
  EXPECT_FALSE(hands.calm_since(kOne, hands.moment()));
  EXPECT_TRUE(hands.calm_since(kOther, hands.moment()));
}

// The kernel says that it wants the lease; then it gets it; then who asked looks.
TEST(Hands, ALeaseThatWasGivenWhileTheKernelWasAskedIsNotTakenAgain) {
  Hands hands;
  hands.begin(kOne);
  const uint64_t asked = hands.moment();
  hands.end(kOne);
  EXPECT_FALSE(hands.change(kOne));
  EXPECT_FALSE(hands.calm_since(kOne, asked));
  EXPECT_TRUE(hands.calm_since(kOther, asked));
  EXPECT_TRUE(hands.calm_since(kOne, hands.moment())) << "the next answer counts";
}

TEST(Hands, AlsoWhereAllOfItHappenedMeanwhile) {
  Hands hands;
  const uint64_t asked = hands.moment();
  hands.begin(kOne);
  hands.end(kOne);
  EXPECT_FALSE(hands.calm_since(kOne, asked));
}

TEST(Hands, AnEndWithoutABeginningIsNone) {
  Hands hands;
  const uint64_t asked = hands.moment();
  hands.end(kOne);
  EXPECT_TRUE(hands.calm_since(kOne, asked));
}

}  // namespace
