// The way in of what workers send: from the frames that a socket judged to the deployment.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "daemon/net/counts_subscriber.h"

namespace eplbd {

class CurveServer;
class Deployment;

// Decodes each message, checks that its key may speak for its source, and hands it on; what is
// rejected is counted and logged. Both outlive it; `curve` is null without CURVE.
CountsHandler intake_of(Deployment& deployment, const CurveServer* curve);

}  // namespace eplbd
